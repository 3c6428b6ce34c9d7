from __future__ import annotations

import numpy as np
import pytest
from graphs import outputs, parse, random_model, samples

from edgebm.errors import PassError
from edgebm.ir.annotate import annotated, quant_of
from edgebm.ir.edit import const, set_const
from edgebm.ir.model import Model
from edgebm.passes.base import Context
from edgebm.passes.driver import run_passes
from edgebm.passes.quantize_weights_only import QuantizeWeightsOnly
from edgebm.quant.params import QuantParams

CASES = {
    # text, shape of w, (bits, axis, block size) at 4 bits and blocks of 32
    "matmul": ("(float[2,64] x) => (float[2,24] y) { y = MatMul(x, w) }", (64, 24), (4, 0, 32)),
    "gemm": ("(float[2,64] x) => (float[2,24] y) { y = Gemm(x, w) }", (64, 24), (4, 0, 32)),
    "gemm transB": (
        "(float[2,64] x) => (float[2,24] y) { y = Gemm<transB=1>(x, w) }", (24, 64), (4, 1, 32),
    ),
    "a smaller block": (
        "(float[2,48] x) => (float[2,24] y) { y = MatMul(x, w) }", (48, 24), (4, 0, 16),
    ),
    "no block": (
        "(float[2,40] x) => (float[2,32] y) { y = MatMul(x, w) }", (40, 32), (8, 1, None),
    ),
    "odd": ("(float[2,65] x) => (float[2,32] y) { y = MatMul(x, w) }", (65, 32), (8, 1, None)),
    "stack": (
        "(float[2,3,64] x) => (float[2,3,24] y) { y = MatMul(x, w) }", (2, 64, 24), (8, 2, None),
    ),
    "conv": (
        "(float[1,16,9] x) => (float[1,32,7] y) { y = Conv(x, w) }", (32, 16, 3), (8, 0, None),
    ),
    "table": ("(int64[2,3] x) => (float[2,3,32] y) { y = Gather(w, x) }", (64, 32), (8, 0, None)),
}  # fmt: skip


def decided(model: Model, ctx: Context | None = None, *, bits: int = 4, block: int = 32) -> Model:
    step = QuantizeWeightsOnly(bits=bits, block_size=block)  # type: ignore[arg-type]
    return run_passes(model, [step], ctx or Context())[0]


def params_of(model: Model, name: str = "w") -> QuantParams:
    params = quant_of(model.graph.graph.initializers[name])
    assert params is not None
    return params


@pytest.mark.parametrize("label", CASES)
def test_four_bits_in_blocks_where_a_runtime_multiplies_them_else_eight(label: str) -> None:
    text, shape, (bits, axis, block) = CASES[label]
    ctx = Context()
    params = params_of(decided(random_model(f"g {text}", w=shape), ctx))
    assert (params.bits, params.axis, params.block_size) == (bits, axis, block)
    assert params.signed is (block is None)
    reasons = [skip.reason for skip in ctx.skips]
    assert bool(reasons) is (bits == 8)
    assert all(reason.startswith("8 bits in place of 4: ") for reason in reasons)


@pytest.mark.parametrize("label", CASES)
def test_eight_bits_need_no_excuse(label: str) -> None:
    text, shape, (_, _, block) = CASES[label]
    ctx = Context()
    params = params_of(decided(random_model(f"g {text}", w=shape), ctx, bits=8))
    assert (params.bits, params.block_size) == (8, block)
    assert ctx.skips == []


def test_the_largest_power_of_two_that_divides_up_to_the_one_asked_for() -> None:
    text, shape, _ = CASES["a smaller block"]
    for asked, want in ((256, 16), (16, 16)):
        assert (
            params_of(decided(random_model(f"g {text}", w=shape), block=asked)).block_size == want
        )


@pytest.mark.parametrize(("op", "gates"), [("LSTM", 4), ("GRU", 3), ("RNN", 1)])
def test_both_matrices_of_a_recurrent_layer_take_eight_bits_and_say_so_once(
    op: str, gates: int
) -> None:
    model = random_model(
        f"g (float[6,1,40] x) => (float[6,1,1,40] y) {{ y = {op}<hidden_size=40>(x, w, r) }}",
        w=(1, 40 * gates, 40),
        r=(1, 40 * gates, 40),
    )
    ctx = Context()
    after = decided(model, ctx)
    for name in ("w", "r"):
        params = params_of(after, name)
        assert (params.bits, params.axis, params.scale.shape) == (8, 1, (40 * gates,))
    assert [s.reason for s in ctx.skips] == [
        f"8 bits in place of 4: no runtime multiplies 4-bit weights of {op}"
    ]


def test_a_weight_along_two_axes_is_stored_once_for_each() -> None:
    """Once as it is and once transposed, and square, so that no shape tells them apart."""
    model = random_model(
        "g (float[2,64] x) => (float[2,64] y) { h = MatMul(x, w)\n y = Gemm<transB=1>(h, w) }",
        w=(64, 64),
    )
    after = decided(model)
    first, second = (quant_of(node.inputs[1]) for node in after.nodes())
    assert first is not None
    assert second is not None
    assert (first.axis, second.axis) == (0, 1)
    arrays = [const(node.inputs[1]) for node in after.nodes()]
    assert all(array is not None for array in arrays)
    np.testing.assert_array_equal(*arrays)  # type: ignore[arg-type]
    feeds = next(iter(samples(model, 1).feeds()))
    np.testing.assert_array_equal(outputs(after, feeds)["y"], outputs(model, feeds)["y"])


def test_readers_along_one_axis_share_a_weight() -> None:
    model = random_model(
        "g (float[2,64] x) => (float[2,64] y) { h = MatMul(x, w)\n y = MatMul(h, w) }", w=(64, 64)
    )
    after = decided(model)
    assert len({node.inputs[1] for node in after.nodes()}) == 1


def test_what_is_left_alone_says_why() -> None:
    model = parse(
        """g (float[2,8] x, float16[2,64] h) => (float[2,4] y, float16[2,32] z, float[2] v) {
          y = MatMul(x, tiny)
          z = MatMul(h, half)
          v = MatMul(x, vector)
        }""",
        tiny=np.ones((8, 4), np.float32),
        half=np.ones((64, 32), np.float16),
        vector=np.ones(8, np.float32),
    )
    ctx = Context()
    assert annotated(decided(model, ctx)) == frozenset()
    assert [skip.reason for skip in ctx.skips] == [
        "the weight has only 32 elements",
        "the weight is float16; only float32 is quantized",
        "the weight is a vector",
    ]


def test_ignored_nodes_keep_float_weights() -> None:
    text, shape, _ = CASES["matmul"]
    ctx = Context(is_ignored=lambda name, op: op == "MatMul")
    assert annotated(decided(random_model(f"g {text}", w=shape), ctx)) == frozenset()
    assert [skip.reason for skip in ctx.skips] == ["it is on the ignored list"]


def test_a_weight_with_nan_names_its_node() -> None:
    model = random_model(
        "g (float[2,64] x) => (float[2,24] y) { [head] y = MatMul(x, w) }", w=(64, 24)
    )
    node = next(iter(model.nodes()))
    set_const(node, 1, np.full((64, 24), np.nan, np.float32), suffix="broken")
    with pytest.raises(PassError, match="NaN") as caught:
        decided(model)
    assert "head" in str(caught.value)
