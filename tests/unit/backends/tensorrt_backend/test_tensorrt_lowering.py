"""What edgebm writes for TensorRT: where its integers are, and that the linter finds nothing."""

from __future__ import annotations

import numpy as np
import onnx_ir as ir
import pytest
from graphs import decide, nothing, outputs, parse, random_model, samples, sqnr_db
from tiny_models import cnn, transformer

from edgebm.backends.half_simulation import in_f32, read_model
from edgebm.backends.placement import Placement, place
from edgebm.backends.qdq import lower
from edgebm.backends.tensorrt.dialect import TENSORRT, tensorrt_dialects
from edgebm.backends.tensorrt.files import build
from edgebm.backends.tensorrt.lint import lint
from edgebm.backends.tensorrt.versions import KNOWN
from edgebm.errors import BackendFailed
from edgebm.exec.extents import note_extents
from edgebm.importers import import_model
from edgebm.ir.model import Model

ATTENTION = tensorrt_dialects()[1]


def written(model: Model, dialect: object = TENSORRT) -> tuple[Model, Placement]:
    """The file for `model` in int8, read back, and the placement it follows."""
    assert dialect in tensorrt_dialects()
    calibration = samples(model)
    decided, _ = decide(model, tensorrt_dialects(), calibration)
    noted = note_extents(decided, calibration.feeds(), lambda: None)
    lowered, plan = lower(noted, dialect, nothing)  # type: ignore[arg-type]
    return read_model(build(lowered, half=True)["model.onnx"]), plan


def sources(node: ir.Node) -> list[str]:
    """What computes each input of a node; a constant has no name."""
    found = []
    for value in node.inputs:
        producer = None if value is None else value.producer()
        found.append("" if producer is None else producer.op_type)
    return found


def by_name(model: Model) -> dict[str, ir.Node]:
    return {node.name or "": node for node in model.nodes()}


def resnet_block(*, downsample: bool = False) -> Model:
    shortcut = "[d] s = Conv(r1, wd)\n" if downsample else ""
    return random_model(
        f"""g (float[1,16,8,8] x) => (float[1,16,8,8] y) {{
          [stem] h = Conv<pads=[1,1,1,1]>(x, w0)
          [r1] r1 = Relu(h)
          [c1] h1 = Conv<pads=[1,1,1,1]>(r1, w1)
          [r2] r2 = Relu(h1)
          [c2] h2 = Conv<pads=[1,1,1,1]>(r2, w2)
          {shortcut}
          [add] a = Add(h2, {"s" if downsample else "r1"})
          [r3] r3 = Relu(a)
          [c3] y = Conv<pads=[1,1,1,1]>(r3, w3)
        }}""",
        **{f"w{k}": (16, 16, 3, 3) for k in range(4)},
        **({"wd": (16, 16, 1, 1)} if downsample else {}),
    )


def test_the_skip_is_quantized_and_the_branch_is_not() -> None:
    model, plan = written(resnet_block())
    nodes = by_name(model)
    assert sources(nodes["add"]) == ["Conv", "DequantizeLinear"]
    # One Q/DQ pair serves the next convolution and the sum.
    assert nodes["add"].inputs[1] is nodes["c1"].inputs[0]
    assert plan.integer_nodes == ("stem", "c1", "c2", "c3")
    assert len(plan.points) == 4


def test_of_two_convolutions_the_shorter_way_is_the_skip() -> None:
    nodes = by_name(written(resnet_block(downsample=True))[0])
    assert sources(nodes["add"]) == ["Conv", "DequantizeLinear"]
    quantizer = nodes["add"].inputs[1].producer().inputs[0].producer()  # type: ignore[union-attr]
    assert quantizer is not None
    assert quantizer.inputs[0].producer() is nodes["d"]  # type: ignore[union-attr]


def test_everything_is_symmetric_int8_with_f16_scales() -> None:
    model, _ = written(resnet_block())
    pairs = [n for n in model.nodes() if n.op_type in ("QuantizeLinear", "DequantizeLinear")]
    assert pairs
    for node in pairs:
        scale, zero = node.inputs[1], node.inputs[2]
        assert scale is not None
        assert zero is not None
        assert scale.dtype == ir.DataType.FLOAT16
        assert zero.dtype == ir.DataType.INT8
        assert not zero.const_value.numpy().any()  # type: ignore[union-attr]
    weights = [v for v in model.graph.graph.initializers.values() if v.name.endswith(".q")]  # type: ignore[union-attr]
    assert min(int(v.const_value.numpy().min()) for v in weights) >= -127  # type: ignore[union-attr]
    for conv in model.nodes("Conv"):
        assert conv.attributes["kernel_shape"].as_ints() == (3, 3)


@pytest.mark.parametrize(
    ("shape", "body", "reason"),
    [
        ("float[2,8,6,6]", "[n] y = Conv(x, w)", "8 -> 8 channels, kernel 3x3, group 1"),
        ("float[1,16]", "[n] y = MatMul(x, m)", "it has 1 row"),
        ("float[4,8]", "[n] y = MatMul(x, k)", "it has 8 summands"),
        ("float[4,16]", "[n] y = MatMul(x, o)", "it has 4 columns"),
        ("float[2,16,6,6]", "[n] y = ConvTranspose<group=2>(x, g)", "it is transposed, with 2"),
    ],
)
def test_what_gains_nothing_stays_float(shape: str, body: str, reason: str) -> None:
    weights = {
        "w": (8, 8, 3, 3),
        "m": (16, 32),
        "k": (8, 32),
        "o": (16, 4),
        "g": (16, 8, 3, 3),
    }
    used = {k: v for k, v in weights.items() if f", {k})" in body}
    # Behind another node, since a first layer may have few channels.
    model = random_model(f"g ({shape} t) => (float y) {{ x = Relu(t)\n {body} }}", **used)
    plan = place(model, TENSORRT, nothing, decided=False)
    assert not plan.nodes
    assert reason in plan.reasons["n"]


def attention(length: int, between: str = "") -> Model:
    """Self-attention over projections, with something between the scores and the mask."""
    scores, extra = ("b", f"{between}\n") if between else ("a", "")
    return random_model(
        f"""g (float[1,{length},32] x, float[1,1,{length}] m) => (float[1,{length},32] y) {{
          q = MatMul(x, wq)
          k = MatMul(x, wk)
          v = MatMul(x, wv)
          t = Transpose<perm=[0,2,1]>(k)
          [scores] a = MatMul(q, t)
          {extra}
          [mask] s = Add({scores}, m)
          p = Softmax(s)
          [values] c = MatMul(p, v)
          y = MatMul(c, wo)
        }}""",
        wq=(32, 32),
        wk=(32, 32),
        wv=(32, 32),
        wo=(32, 32),
    )


def test_attention_is_integer_only_where_it_has_the_shape_that_is_fused() -> None:
    model = attention(32)
    assert not {"scores", "values"} & set(written(model)[1].integer_nodes)
    found, plan = written(model, ATTENTION)
    assert {"scores", "values"} <= set(plan.integer_nodes)
    assert "DequantizeLinear" not in sources(by_name(found)["mask"])
    for other in (attention(600), attention(32, "b = Tanh(a)")):
        plan = place(other, ATTENTION, nothing, decided=False)
        assert "scores" not in plan.integer_nodes


@pytest.mark.parametrize("build_model", [cnn, transformer, resnet_block, lambda: attention(32)])
@pytest.mark.parametrize("dialect", tensorrt_dialects(), ids=lambda d: d.name)
def test_no_version_has_a_finding_and_answers_are_close(
    build_model: object, dialect: object
) -> None:
    made = build_model()  # type: ignore[operator]
    model = made if isinstance(made, Model) else import_model(made)
    found, _ = written(model, dialect)
    for version in KNOWN:
        assert [(f.rule.code, f.node, f.text) for f in lint(found, version)] == []
    for feeds in samples(model).feeds(0, 2):
        want, got = outputs(model, feeds), outputs(in_f32(found), feeds)
        assert all(sqnr_db(want[name], got[name]) > 20 for name in want)


def test_an_embedding_stays_f16() -> None:
    model = random_model(
        "g (int64[1,4] ids) => (float[1,4,32] y) { [e] r = Gather(t, ids)\n y = MatMul(r, w) }",
        t=(8, 32),
        w=(32, 32),
    )
    found, _ = written(model)
    (gather,) = found.nodes("Gather")
    assert gather.inputs[0].dtype == ir.DataType.FLOAT16  # type: ignore[union-attr]


def test_factors_of_a_gemm_go_into_its_constants() -> None:
    model = random_model(
        "g (float[4,16] x, float[4,4] c) => (float[4,4] y, float[4,4] z) {\n"
        "[a] y = Gemm<alpha=0.5, beta=2.0>(x, w, b)\n [b] z = Gemm<beta=3.0>(x, w, c) }",
        w=(16, 4),
        b=(4,),
    )
    noted = note_extents(model, samples(model).feeds(), lambda: None)
    found = read_model(build(noted, half=True)["model.onnx"])
    for node in found.nodes("Gemm"):
        assert not {"alpha", "beta"} & set(node.attributes)
    (feeds,) = samples(model).feeds(0, 1)
    want, got = outputs(model, feeds), outputs(in_f32(found), feeds)
    for name in want:
        np.testing.assert_allclose(got[name], want[name], rtol=0.01, atol=0.01)


def test_everything_that_the_parser_refuses_is_listed_before_any_build() -> None:
    model = parse(
        "g (float[4,4] x) => (float y, float[N,3] z) {\n [d] y = Det(x)\n"
        "[u] r, i, j, k = Unique(x)\n z = Unsqueeze(r, axes) }",
        axes=np.asarray([0]),
    )
    with pytest.raises(BackendFailed) as caught:
        build(model, half=False)
    assert "Det 'd': Det is not imported (E09)" in str(caught.value)
    assert "Unique 'u'" in str(caught.value)
    assert "cpu-arm64" in caught.value.hint
    assert caught.value.details["rules"] == ["E09"]


def test_scales_are_f16_numbers_that_cover_as_much() -> None:
    model = random_model("g (float[4,32] x) => (float[4,32] y) { y = MatMul(x, w) }", w=(32, 32))
    model.graph.graph.initializers["w"].const_value = ir.tensor(
        model.graph.graph.initializers["w"].const_value.numpy() * np.float32(1e-6), name="w"
    )
    decided, _ = decide(model, [TENSORRT], samples(model))
    lowered, _ = lower(decided, TENSORRT, nothing)
    scale = lowered.graph.graph.initializers["w.scale"].const_value.numpy()
    assert np.array_equal(scale, scale.astype(np.float16))
    assert (scale > 0).all()
    stored = lowered.graph.graph.initializers["w.q"].const_value.numpy()
    weight = model.graph.graph.initializers["w"].const_value.numpy()
    # Half of the smallest step of FP16.
    assert np.abs(stored * scale - weight).max() <= 2**-25
