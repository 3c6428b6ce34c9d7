from __future__ import annotations

import numpy as np
import pytest
from graphs import Listed, outputs, random_model, samples

from edgebm.errors import DataError
from edgebm.ir.annotate import quant_of
from edgebm.ir.edit import const
from edgebm.ir.model import Model
from edgebm.passes.base import Context
from edgebm.passes.driver import run_passes
from edgebm.passes.gptq import Gptq
from edgebm.passes.quantize_weights import QuantizeWeights
from edgebm.passes.quantize_weights_only import QuantizeWeightsOnly
from edgebm.quant.params import fake_quantize

TEXTS = {
    "matmul": ("y = MatMul(h, w)", (64, 48)),
    "gemm": ("y = Gemm(h, w)", (64, 48)),
    "gemm transB": ("y = Gemm<transB=1>(h, w)", (48, 64)),
}
ONLY = QuantizeWeightsOnly(bits=4, block_size=32)


def layer(label: str) -> Model:
    """One layer behind a narrow one: its inputs share 16 directions."""
    text, shape = TEXTS[label]
    return random_model(
        f"g (float[8,16] x) => (float[8,48] y) {{ h = MatMul(x, u)\n {text} }}",
        u=(16, 64),
        w=shape,
    )


def rounded(model: Model, decide: object = ONLY, **context: object) -> Model:
    ctx = Context(samples=samples(model, 12), **context)  # type: ignore[arg-type]
    return run_passes(model, [decide, Gptq()], ctx)[0]  # type: ignore[list-item]


def simulated(model: Model) -> Model:
    """Each decided weight as the float values of its integers."""
    out = model.clone()
    for value in out.graph.graph.initializers.values():
        params, array = quant_of(value), const(value)
        if params is not None and array is not None:
            import onnx_ir as ir

            value.const_value = ir.tensor(fake_quantize(array, params), name=value.name)
    return out


def output_error(model: Model, after: Model) -> float:
    total = 0.0
    for feeds in samples(model, 8, seed=5).feeds():
        total += float(((outputs(after, feeds)["y"] - outputs(model, feeds)["y"]) ** 2).sum())
    return total


@pytest.mark.parametrize("label", TEXTS)
@pytest.mark.parametrize("decide", [ONLY, QuantizeWeights(bits=4)], ids=["blocks", "channels"])
def test_outputs_change_less_than_by_rounding_to_the_nearest(label: str, decide: object) -> None:
    model = layer(label)
    after = rounded(model, decide)
    node = list(after.nodes())[1]
    params, weight = quant_of(node.inputs[1]), const(node.inputs[1])
    assert params is not None
    assert weight is not None
    np.testing.assert_array_equal(fake_quantize(weight, params), weight)
    nearest = run_passes(model, [decide], Context())[0]  # type: ignore[list-item]
    assert output_error(model, after) < 0.7 * output_error(model, simulated(nearest))


def test_the_parameters_are_those_decided_before() -> None:
    model = layer("matmul")
    before = run_passes(model, [ONLY], Context())[0]
    after = rounded(model)
    for name in ("u", "w"):
        kept, now = (quant_of(m.graph.graph.initializers[name]) for m in (before, after))
        assert (kept is None) == (now is None)
        if kept is not None and now is not None:
            np.testing.assert_array_equal(kept.scale, now.scale)
            np.testing.assert_array_equal(kept.zero_point, now.zero_point)


def test_layers_that_share_a_weight_still_share_it() -> None:
    model = random_model(
        "g (float[8,64] x) => (float[8,64] y) { h = MatMul(x, w)\n y = MatMul(h, w) }", w=(64, 64)
    )
    after = rounded(model)
    assert len({node.inputs[1] for node in after.nodes()}) == 1
    assert list(after.graph.graph.initializers) == ["w"]


def test_what_is_not_a_decided_matrix_is_left_alone() -> None:
    model = random_model(
        """g (float[1,16,9] x) => (float[1,32,7] c, float[1,16,64] y) {
          c = Conv(x, k)
          y = MatMul(x, w)
        }""",
        k=(32, 16, 3),
        w=(9, 64),
    )
    ctx = Context(samples=samples(model, 2))
    after = run_passes(model, [ONLY, Gptq()], ctx)[0]
    assert after.to_bytes() == model.to_bytes()
    assert ctx.skips[-1].reason == "no weight of a matrix product was decided on before"


def test_ignored_readers_keep_the_float_weight() -> None:
    model = random_model(
        "g (float[8,64] x) => (float[8,64] y, float[8,64] z)"
        " { [a] y = MatMul(x, w)\n [b] z = MatMul(x, w) }",
        w=(64, 64),
    )
    after = rounded(model, is_ignored=lambda name, op: name == "b")
    a, b = (const(node.inputs[1]) for node in after.nodes())
    original = const(next(iter(model.nodes())).inputs[1])
    assert b is not None
    assert a is not None
    assert original is not None
    np.testing.assert_array_equal(b, original)
    assert (a != original).any()


def test_without_samples_it_is_an_error_of_the_data() -> None:
    model = layer("matmul")
    for none in (None, Listed([])):
        with pytest.raises(DataError, match="GPTQ needs calibration samples"):
            run_passes(model, [ONLY, Gptq()], Context(samples=none))


def test_samples_that_overflow_are_named() -> None:
    model = random_model(
        "g (float[8,64] x) => (float[8,64] y) { h = Exp(x)\n y = MatMul(h, w) }", w=(64, 64)
    )
    feeds = [{"x": np.full((8, 64), 1000.0, np.float32)}]
    with pytest.raises(DataError, match="calibration sample 0, value 'h'"):
        run_passes(model, [ONLY, Gptq()], Context(samples=Listed(feeds)))
