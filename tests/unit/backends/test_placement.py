"""Which nodes become integers, which values get Q/DQ, and the sentences about the rest."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from graphs import nothing, parse, quantized, random_model

from edgebm.backends.dialects import (
    EXACT,
    ONNXRUNTIME_CPU,
    OPENVINO_CPU,
    Dialect,
    Grid,
    cpu_dialects,
    cpu_grids,
)
from edgebm.backends.placement import Placement, place
from edgebm.ir.annotate import set_quant
from edgebm.ir.model import Model
from edgebm.quant.params import Range

BOTH = [ONNXRUNTIME_CPU, OPENVINO_CPU]
POOL = " <int64[2] axes = {2, 3}>"
each_engine = pytest.mark.parametrize("dialect", BOTH, ids=lambda d: d.runtime)


def planned(model: Model, dialect: Dialect) -> Placement:
    return place(model, dialect, nothing, decided=False)


def names(plan: Placement) -> set[str]:
    return {node.name or "" for node in plan.nodes}


def residual() -> Model:
    return random_model(
        f"""g (float[1,4,6,6] x) => (float[1,4] y){POOL} {{
          [c1] h1 = Conv<pads=[1,1,1,1]>(x, w1)
          [r1] r1 = Relu(h1)
          [c2] h2 = Conv<pads=[1,1,1,1]>(r1, w2)
          [add] s = Add(h2, r1)
          [r2] r2 = Relu(s)
          [c3] h3 = Conv(r2, w3)
          [mean] y = ReduceMean<keepdims=0>(h3, axes)
        }}""",
        w1=(4, 4, 3, 3),
        w2=(4, 4, 3, 3),
        w3=(4, 4, 1, 1),
    )


@each_engine
def test_a_residual_add_between_integers_is_one(dialect: Dialect) -> None:
    plan = planned(residual(), dialect)
    assert names(plan) == {"c1", "c2", "add", "c3"}
    assert plan.reasons == {}
    # Behind a fused ReLU, never in front of it.
    assert {"x", "r1", "h2", "r2"} <= set(plan.points)
    assert not {"h1", "s"} & set(plan.points)


@pytest.mark.parametrize(
    ("dialect", "joined"),
    [(ONNXRUNTIME_CPU, True), (OPENVINO_CPU, False)],
    ids=["onnxruntime", "openvino"],
)
def test_an_add_behind_a_grouped_convolution(dialect: Dialect, joined: bool) -> None:
    model = random_model(
        f"""g (float[1,8,6,6] x) => (float[1,4] y){POOL} {{
          [c1] r1 = Conv(x, w1)
          [c2] h2 = Conv<group = 2>(r1, w2)
          [add] s = Add(h2, r1)
          [r2] r2 = Relu(s)
          [c3] h3 = Conv(r2, w3)
          [mean] y = ReduceMean<keepdims=0>(h3, axes)
        }}""",
        w1=(8, 8, 1, 1),
        w2=(8, 4, 1, 1),
        w3=(4, 8, 1, 1),
    )
    assert ("add" in names(planned(model, dialect))) == joined


@each_engine
def test_an_add_that_a_float_op_reads_stays_float(dialect: Dialect) -> None:
    model = random_model(
        f"""g (float[1,4,6,6] x) => (float[1,4] y){POOL} {{
          [c1] a = Conv<pads=[1,1,1,1]>(x, w1)
          [c2] b = Conv<pads=[1,1,1,1]>(x, w2)
          [add] s = Add(a, b)
          [sig] t = Sigmoid(s)
          [mean] y = ReduceMean<keepdims=0>(t, axes)
        }}""",
        w1=(4, 4, 3, 3),
        w2=(4, 4, 3, 3),
    )
    plan = planned(model, dialect)
    assert names(plan) == {"c1", "c2"}
    assert "s" not in plan.points


@each_engine
def test_adding_a_constant_or_a_value_to_itself_stays_float(dialect: Dialect) -> None:
    for addend in ("a", "k"):
        model = random_model(
            f"""g (float[1,4,6,6] x) => (float[1,4] y){POOL} {{
              [c1] a = Conv(x, w1)
              [add] s = Add(a, {addend})
              [c2] b = Conv(s, w2)
              [mean] y = ReduceMean<keepdims=0>(b, axes)
            }}""",
            w1=(4, 4, 1, 1),
            w2=(4, 4, 1, 1),
            **({"k": (4, 1, 1)} if addend == "k" else {}),
        )
        assert names(planned(model, dialect)) == {"c1", "c2"}


def carriers() -> Model:
    # Each row of the flat matrix is a part of an image: no weight could take the Transpose up.
    return random_model(
        """g (float[1,3,8,8] x) => (float[4,5] y) <int64[2] flat = {4, 16}> {
          [c1] h = Conv<pads=[1,1,1,1]>(x, w1)
          [pool] p = MaxPool<kernel_shape=[2,2], strides=[2,2]>(h)
          [move] t = Transpose<perm=[0,2,3,1]>(p)
          [flat] f = Reshape(t, flat)
          [fc] y = MatMul(f, w2)
        }""",
        w1=(4, 3, 3, 3),
        w2=(16, 5),
    )


def test_carriers_hand_the_integers_of_their_source_on() -> None:
    openvino = planned(carriers(), OPENVINO_CPU)
    assert set(openvino.points) == {"x", "h"}
    ort = planned(carriers(), ONNXRUNTIME_CPU)
    assert set(ort.points) == {"x", "h", "p", "t", "f"}
    assert {ort.points[label].name for label in ("h", "p", "t", "f")} == {"h"}
    for plan in (openvino, ort):
        assert names(plan) == {"c1", "fc"}
        assert {node.name for node in plan.carriers} == {"pool", "move", "flat"}


def test_every_carried_point_has_its_source_grid() -> None:
    lowered, _ = quantized(carriers(), ONNXRUNTIME_CPU)
    grids = {
        node.inputs[0].name: tuple(
            value.const_value.numpy().item()
            for value in node.inputs[1:]
            if value is not None and value.const_value is not None
        )
        for node in lowered.nodes("QuantizeLinear")
        if node.inputs[0] is not None
    }
    assert len({grids[label] for label in ("h", "p", "t", "f")}) == 1
    assert grids["x"] != grids["h"]


def test_a_carrier_of_a_model_input_is_quantized_in_front() -> None:
    model = random_model(
        """g (float[1,8,8,3] x) => (float[1,2,3,3] y) {
          [move] t = Transpose<perm=[0,3,1,2]>(x)
          [pool] p = MaxPool<kernel_shape=[2,2], strides=[2,2]>(t)
          [c] h = Conv(p, w)
          [r] r = Relu(h)
          [c2] y = MatMul(r, w2)
        }""",
        w=(2, 3, 2, 2),
        w2=(3, 3),
    )
    plan = planned(model, OPENVINO_CPU)
    assert {node.name for node in plan.carriers} == {"move", "pool"}
    assert set(plan.points) == {"x", "r"}


def test_concat_joins_only_integers() -> None:
    body = """[c1] a = Conv(x, w1)
          [c2] b = Conv(x, w2)
          [sig] d = Sigmoid(b)
          [cat] j = Concat<axis=1>(a, {second})
          [c3] o = Conv(j, w3)
          [mean] y = ReduceMean<keepdims=0>(o, axes)"""
    for second, joined in (("b", True), ("d", False)):
        text = body.format(second=second)
        if second == "b":
            text = text.replace("[sig] d = Sigmoid(b)\n", "")
        model = random_model(
            f"g (float[1,4,6,6] x) => (float[1,4] y){POOL} {{ {text} }}",
            w1=(4, 4, 1, 1),
            w2=(2, 4, 1, 1),
            w3=(4, 6, 1, 1),
        )
        for dialect in BOTH:
            assert ("cat" in names(planned(model, dialect))) is joined


@pytest.mark.parametrize("tail", ["", "Relu"])
def test_a_convolution_as_model_output(tail: str) -> None:
    text = "[c] h = Conv(x, w)\n [r] y = Relu(h)" if tail else "[c] y = Conv(x, w)"
    model = random_model(
        f"g (float[1,3,6,6] x) => (float[1,4,4,4] y) {{ {text} }}", w=(4, 3, 3, 3)
    )
    ort = planned(model, ONNXRUNTIME_CPU)
    assert names(ort) == set()
    assert ort.reasons == {"c": "onnxruntime needs its output quantized; it is a model output"}
    assert ort.points == {}
    assert names(planned(model, OPENVINO_CPU)) == {"c"}


def attention() -> Model:
    return random_model(
        """g (float[1,6,8] x) => (float[1,6,8] y) {
          [q] q = MatMul(x, wq)
          [k] k = MatMul(x, wk)
          [kt] t = Transpose<perm=[0,2,1]>(k)
          [qk] s = MatMul(q, t)
          [soft] p = Softmax<axis=-1>(s)
          [pv] a = MatMul(p, q)
          [o] y = MatMul(a, wo)
        }""",
        wq=(8, 8),
        wk=(8, 8),
        wo=(8, 8),
    )


@pytest.mark.parametrize("runtime", ["onnxruntime", "openvino"])
def test_products_of_two_activations_are_a_placement_of_their_own(runtime: str) -> None:
    plain, full = (planned(attention(), dialect) for dialect in cpu_dialects(runtime))
    assert names(plain) == {"q", "k", "o"}
    assert plain.reasons == dict.fromkeys(
        ("qk", "pv"), "a product of two activations is kept in float here"
    )
    assert names(full) == {"q", "k", "qk", "pv", "o"}
    assert full.reasons == {}
    assert {"q", "k", "p"} <= set(full.points)
    assert not {"k", "p"} & set(plain.points)


@pytest.mark.parametrize(
    ("body", "reason"),
    [
        ("[n] y = Gemm<alpha=0.5>(x, w)", "alpha, beta or transA"),
        ("[n] y = Gemm<beta=0.5>(x, w, c)", "alpha, beta or transA"),
        ("[n] y = Gemm<transA=1>(x, w)", "alpha, beta or transA"),
        ("[n] y = MatMul(w, x)", "its right operand is not a constant float weight"),
    ],
)
@each_engine
def test_products_without_a_kernel(dialect: Dialect, body: str, reason: str) -> None:
    shapes = {"w": (6, 6), **({"c": (6,)} if ", c)" in body else {})}
    model = random_model(f"g (float[6,6] x) => (float[6,6] y) {{ {body} }}", **shapes)
    plan = planned(model, dialect)
    assert names(plan) == set()
    assert reason in plan.reasons["n"]


def test_what_only_one_engine_can() -> None:
    model = random_model(
        "g (float[1,4,4,4] x) => (float[1,4,8,8] y)"
        " { [up] y = ConvTranspose<strides=[2,2]>(x, w) }",
        w=(4, 4, 2, 2),
    )
    assert planned(model, ONNXRUNTIME_CPU).reasons == {
        "up": "onnxruntime has no int8 kernel for ConvTranspose"
    }
    assert names(planned(model, OPENVINO_CPU)) == {"up"}


@each_engine
def test_other_float_types_say_that_they_stay(dialect: Dialect) -> None:
    weight = np.ones((8, 8), np.float16)
    model = parse(
        "g (float16[1,8] x) => (float16[1,8] y) { [a] h = MatMul(x, w)\n [b] y = MatMul(h, w) }",
        w=weight,
    )
    plan = planned(model, dialect)
    assert names(plan) == set()
    why = "it computes in float16; integer kernels work beside float32 only"
    assert plan.reasons == {"a": why, "b": why}


def cell(op: str, attributes: str = "") -> Model:
    gates = {"LSTM": 4, "GRU": 3, "RNN": 1}[op]
    return random_model(
        f"g (float[5,1,4] x) => (float[5,1,1,3] y) {{ [rnn] y = {op}<hidden_size=3{attributes}>"
        "(x, w, r) }",
        w=(1, gates * 3, 4),
        r=(1, gates * 3, 3),
    )


@pytest.mark.parametrize("op", ["LSTM", "GRU", "RNN"])
def test_recurrent_layers_say_that_they_run_in_float(op: str) -> None:
    plan = planned(cell(op), ONNXRUNTIME_CPU)
    assert plan.integer_nodes == ()
    assert plan.reasons == {"rnn": f"{op} runs in float on onnxruntime"}


@pytest.mark.parametrize("op", ["LSTM", "GRU"])
def test_openvino_has_integers_inside_of_cells(op: str) -> None:
    plan = planned(cell(op), OPENVINO_CPU)
    assert plan.integer_nodes == ("rnn",)
    assert plan.points == plan.reasons == {}


@pytest.mark.parametrize(
    ("op", "attributes", "why"),
    [
        ("RNN", "", "RNN runs in float on openvino"),
        ("GRU", ", linear_before_reset=1", "only where the reset gate comes before the product"),
        ("LSTM", ", clip=1.0", "nothing clipped"),
    ],
)
def test_openvino_has_none_for_other_forms(op: str, attributes: str, why: str) -> None:
    plan = planned(cell(op, attributes), OPENVINO_CPU)
    assert plan.integer_nodes == ()
    assert why in plan.reasons["rnn"]


def test_a_cell_without_a_decision_stays_float() -> None:
    plan = place(cell("LSTM"), OPENVINO_CPU, nothing, decided=True)
    assert plan.reasons == {"rnn": "its integers were not laid out"}


@each_engine
def test_ignored_nodes_stay_float(dialect: Dialect) -> None:
    plan = place(residual(), dialect, lambda name, op: name == "c2", decided=False)
    assert names(plan) == {"c1", "c3"}
    assert plan.reasons == {"c2": "it is on the ignored list"}
    no_add = place(residual(), dialect, lambda name, op: op == "Add", decided=False)
    assert names(no_add) == {"c1", "c2", "c3"}


@each_engine
def test_what_has_no_decision_stays_float(dialect: Dialect) -> None:
    model = residual()
    plan = place(model, dialect, nothing, decided=True)
    assert names(plan) == set()
    assert set(plan.reasons.values()) == {"its weight was not quantized"}
    decided, _ = quantized(model, dialect)
    assert "DequantizeLinear" in {node.op_type for node in decided.nodes()}


@each_engine
def test_a_missing_range_is_named(dialect: Dialect) -> None:
    from edgebm.passes.base import Context
    from edgebm.passes.driver import run_passes
    from edgebm.passes.quantize_weights import QuantizeWeights

    model, _ = run_passes(residual(), [QuantizeWeights()], Context())
    plan = place(model, dialect, nothing, decided=True)
    assert plan.reasons["c1"].startswith("no range was calibrated for x")
    set_quant(model.graph.graph.inputs[0], Range(-1.0, 1.0))
    for node in model.nodes("Relu"):
        set_quant(node.outputs[0], Range(0.0, 1.0))
    assert "c1" in names(place(model, dialect, nothing, decided=True))


@each_engine
def test_planning_edits_nothing(dialect: Dialect) -> None:
    model = attention()
    before = model.to_bytes()
    planned(model, dialect)
    assert model.to_bytes() == before


@each_engine
def test_calibration_and_lowering_agree_on_the_points(dialect: Dialect) -> None:
    """What is observed is what is lowered: no range is collected in vain, none is missing."""
    for model in (residual(), carriers(), attention()):
        wanted = planned(model, dialect)
        lowered, plan = quantized(model, dialect)
        assert set(plan.points) == set(wanted.points)
        assert names(plan) == names(wanted)
        count = sum(1 for _ in lowered.nodes("QuantizeLinear"))
        assert count == len(plan.points)


def test_grids_follow_the_features() -> None:
    assert cpu_grids({"avx2", "fma"}) == (Grid(8, 7), Grid(7, 8))
    for exact in ("avx512_vnni", "avx_vnni", "amx_int8", "neon"):
        assert cpu_grids({"avx2", exact}) == (EXACT,)
    for grid in (EXACT, Grid(7, 8)):
        assert {dialect.grid for dialect in cpu_dialects("openvino", grid)} == {grid}


@pytest.mark.parametrize("grid", [EXACT, Grid(7, 8), Grid(8, 7)], ids=str)
def test_integers_keep_to_the_grid(grid: Grid) -> None:
    lowered, _ = quantized(residual(), replace(ONNXRUNTIME_CPU, grid=grid))
    stored = [
        value.const_value.numpy()
        for name, value in lowered.graph.graph.initializers.items()
        if name.endswith(".q") and value.const_value is not None
    ]
    peak = 2 ** (grid.weight_bits - 1) - 1
    assert max(int(abs(q.astype(int)).max()) for q in stored if q.dtype == "int8") == peak
    # The range of calibration takes activation_bits: its step tells.
    wide, _ = quantized(residual(), ONNXRUNTIME_CPU)
    steps = [
        next(
            node.inputs[1].const_value.numpy().item()  # type: ignore[union-attr]
            for node in m.nodes("QuantizeLinear")
            if node.inputs[0] is not None and node.inputs[0].name == "x"
        )
        for m in (lowered, wide)
    ]
    assert steps[0] / steps[1] == pytest.approx(255 / (2**grid.activation_bits - 1), rel=1e-5)
