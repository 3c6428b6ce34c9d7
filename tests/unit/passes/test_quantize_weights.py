from __future__ import annotations

import numpy as np
import pytest
from graphs import parse, random_model
from pydantic import ValidationError

from edgebm.errors import PassError
from edgebm.ir.annotate import annotated, quant_of
from edgebm.ir.model import Model
from edgebm.passes.base import Context
from edgebm.passes.driver import run_passes
from edgebm.passes.quantize_weights import QuantizeWeights
from edgebm.quant.params import QuantParams


def decided(model: Model, ctx: Context | None = None) -> Model:
    return run_passes(model, [QuantizeWeights()], ctx or Context())[0]


def params_of(model: Model, name: str) -> QuantParams:
    params = quant_of(model.graph.graph.initializers[name])
    assert params is not None
    return params


@pytest.mark.parametrize(
    ("text", "shape", "axis"),
    [
        ("(float[1,6,9] x) => (float[1,4,7] y) { y = Conv(x, w) }", (4, 6, 3), 0),
        ("(float[1,6,9,9] x) => (float[1,4,7,7] y) { y = Conv<group=2>(x, w) }", (4, 3, 3, 3), 0),
        ("(float[1,6,9,9] x) => (float[1,6,7,7] y) { y = Conv<group=6>(x, w) }", (6, 1, 3, 3), 0),
        ("(float[1,6,5,5] x) => (float[1,4,7,7] y) { y = ConvTranspose(x, w) }", (6, 4, 3, 3), 1),
        (
            "(float[1,6,5,5] x) => (float[1,8,7,7] y) { y = ConvTranspose<group=2>(x, w) }",
            (6, 4, 3, 3),
            None,
        ),
        ("(float[2,6] x) => (float[2,4] y) { y = Gemm(x, w) }", (6, 4), 1),
        ("(float[2,6] x) => (float[2,4] y) { y = Gemm<transB=1>(x, w) }", (4, 6), 0),
        ("(float[2,3,6] x) => (float[2,3,4] y) { y = MatMul(x, w) }", (6, 4), 1),
        ("(float[2,3,6] x) => (float[2,3,4] y) { y = MatMul(x, w) }", (2, 6, 4), 2),
        ("(int64[2,3] x) => (float[2,3,8] y) { y = Gather(w, x) }", (512, 8), 0),
    ],
)
def test_one_scale_for_each_output_channel(
    text: str, shape: tuple[int, ...], axis: int | None
) -> None:
    model = random_model(f"g {text}", w=shape)
    params = params_of(decided(model), "w")
    assert params.axis == axis
    assert params.scale.shape == (() if axis is None else (shape[axis],))
    held = model.graph.graph.initializers["w"].const_value
    assert held is not None
    weight = np.abs(held.numpy())
    others = None if axis is None else tuple(i for i in range(len(shape)) if i != axis)
    np.testing.assert_allclose(params.scale * params.qmax, weight.max(axis=others), rtol=1e-6)


@pytest.mark.parametrize(("asked", "want"), [(None, 8), (4, 4), (2, 2)])
def test_bits(asked: int | None, want: int) -> None:
    model = random_model("g (float[2,6] x) => (float[2,4] y) { y = MatMul(x, w) }", w=(6, 4))
    step = QuantizeWeights() if asked is None else QuantizeWeights(bits=asked)
    assert params_of(run_passes(model, [step], Context())[0], "w").bits == want


def test_fewer_bits_are_those_of_what_is_multiplied_with_integers() -> None:
    model = random_model(
        """g (int64[5,1] ids) => (float[5,1,1,4] y, float[5,1,6] z) {
          e = Gather(table, ids)
          y, h, c = LSTM<hidden_size=4>(e, w, r)
          z = MatMul(e, m)
        }""",
        table=(600, 8), w=(1, 16, 8), r=(1, 16, 4), m=(8, 6),
    )  # fmt: skip
    after = run_passes(model, [QuantizeWeights(bits=4)], Context())[0]
    assert {label: params_of(after, label).bits for label in ("table", "w", "r", "m")} == {
        "table": 8, "w": 8, "r": 8, "m": 4,
    }  # fmt: skip


@pytest.mark.parametrize("bits", [1, 9, 16])
def test_other_widths_are_refused(bits: int) -> None:
    with pytest.raises(ValidationError):
        QuantizeWeights(bits=bits)


@pytest.mark.parametrize(
    ("text", "shapes", "reason"),
    [
        ("(float[2,6] x) => (float[2] y) { y = MatMul(x, w) }", {"w": (6,)}, "a vector"),
        (
            "(int64[3] x) => (float[3,8] y) { y = Gather(w, x) }",
            {"w": (511, 8)},
            "the table has only 4088 elements",
        ),
    ],
)
def test_every_reason_to_leave_it(
    text: str, shapes: dict[str, tuple[int, ...]], reason: str
) -> None:
    ctx = Context()
    after = decided(random_model(f"g {text}", **shapes), ctx=ctx)
    assert [reason in skip.reason for skip in ctx.skips] == [True]
    assert annotated(after) == frozenset()


@pytest.mark.parametrize(("op", "gates"), [("LSTM", 4), ("GRU", 3), ("RNN", 1)])
def test_both_weights_of_a_cell_get_a_scale_for_each_row(op: str, gates: int) -> None:
    model = random_model(
        f"g (float[5,1,4] x) => (float[5,1,1,3] y) {{ y = {op}<hidden_size=3>(x, w, r) }}",
        w=(1, gates * 3, 4),
        r=(1, gates * 3, 3),
    )
    after = decided(model)
    for name in ("w", "r"):
        params = params_of(after, name)
        assert (params.axis, params.scale.shape) == (1, (gates * 3,))


@pytest.mark.parametrize(("kind", "dtype"), [("float16", np.float16), ("double", np.float64)])
def test_other_float_types_stay(kind: str, dtype: type) -> None:
    ctx = Context()
    model = parse(
        f"g ({kind}[2,6] x) => ({kind}[2,4] y) {{ y = MatMul(x, w) }}", w=np.ones((6, 4), dtype)
    )
    assert annotated(decided(model, ctx=ctx)) == frozenset()
    assert ctx.skips[0].reason.startswith(f"the weight is {np.dtype(dtype).name};")


def test_the_ignored_list() -> None:
    model = random_model(
        "g (float[2,6] x) => (float[2,6] y)"
        " { [keep] h = MatMul(x, w)\n [other] y = MatMul(h, u) }",
        w=(6, 6),
        u=(6, 6),
    )
    ctx = Context(is_ignored=lambda name, op_type: name == "keep")
    assert annotated(decided(model, ctx=ctx)) == {"u"}
    assert [(s.step, s.node, s.reason) for s in ctx.skips] == [
        ("quantize_weights", "keep", "it is on the ignored list")
    ]


@pytest.mark.parametrize(
    "text",
    [
        "(float[2,6] x, float[6,4] w) => (float[2,4] y) { y = MatMul(x, w) }",
        "(int64[3] x, float[600,8] w) => (float[3,8] y) { y = Gather(w, x) }",
        "(float[2,6] x) => (float[2,6] y) { y = Relu(x) }",
    ],
)
def test_without_a_constant_weight_there_is_nothing_to_say(text: str) -> None:
    ctx = Context()
    assert annotated(decided(random_model(f"g {text}"), ctx=ctx)) == frozenset()
    assert ctx.skips == []


def test_a_table_that_is_multiplied_too_keeps_each_reader_right() -> None:
    """One array as embedding (scales along rows) and as MatMul weight (along columns)."""
    model = random_model(
        """g (int64[3] ids, float[2,512] x) => (float[3,8] e, float[2,8] y) {
          e = Gather(w, ids)
          y = MatMul(x, w)
        }""",
        w=(512, 8),
    )
    after = decided(model)
    for node in after.nodes():
        index = 0 if node.op_type == "Gather" else 1
        params = quant_of(node.inputs[index])
        assert params is not None
        assert params.axis == index


def test_a_matrix_of_nan_names_its_node() -> None:
    weight = np.ones((6, 4), np.float32)
    model = parse("g (float[2,6] x) => (float[2,4] y) { [fc] y = MatMul(x, w) }", w=weight)
    bad = model.graph.graph.initializers["w"]
    import onnx_ir as ir

    bad.const_value = ir.tensor(np.full((6, 4), np.nan, np.float32), name="w")
    with pytest.raises(PassError, match="quantize_weights at node 'fc': weight has NaN"):
        QuantizeWeights()(model, Context())
