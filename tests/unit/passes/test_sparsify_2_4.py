from __future__ import annotations

import numpy as np
import pytest
from graphs import Array, Listed, outputs, parse, random_model, samples
from tiny_models import cnn, transformer

from edgebm.errors import DataError
from edgebm.ir.annotate import quant_of
from edgebm.ir.edit import const
from edgebm.ir.model import Model
from edgebm.ir.zeros import zeros_to_keep
from edgebm.passes.base import Context, Pass
from edgebm.passes.driver import run_passes
from edgebm.passes.equalize_channels import EqualizeChannels
from edgebm.passes.fold_batchnorm import FoldBatchNorm
from edgebm.passes.quantize_weights import QuantizeWeights
from edgebm.passes.smooth_activations import SmoothActivations
from edgebm.passes.sparsify_2_4 import SparsifyTwoFour
from edgebm.pruning.two_four import two_four_weights
from edgebm.quant.params import fake_quantize

MAGNITUDE = SparsifyTwoFour(importance="magnitude")


def sparse(model: Model, step: Pass, ctx: Context | None = None) -> tuple[Model, Context]:
    ctx = ctx or Context(samples=samples(model, 6))
    return run_passes(model, [step], ctx)[0], ctx


def weight(model: Model, label: str) -> Array:
    array = const(model.graph.graph.initializers[label])
    assert array is not None
    return array


def test_every_family_of_layers() -> None:
    made, ctx = sparse(cnn(), SparsifyTwoFour())
    assert two_four_weights(made) == {"w2", "w3"}
    assert [(skip.node, skip.reason) for skip in ctx.skips] == [
        ("Conv_0", "it sums over 3 inputs, which is no multiple of 4")
    ]
    params = made.param_count()
    (note,) = ctx.notes
    assert note == (
        f"2 weights were made 2:4 sparse, half of {16 * 16 * 9 + 5 * 16:,} numbers out of "
        f"{params:,}; only TensorRT on GPUs of Ampere and later is faster by it"
    )
    made, ctx = sparse(transformer(), SparsifyTwoFour())
    assert two_four_weights(made) == {"wq", "wk", "wv", "wo", "w1", "w2"}
    assert ctx.skips == []
    # What training keeps zero is what was set to zero here.
    masks = zeros_to_keep(made, two_four_weights(made))
    assert {label: mask.mean() for label, mask in masks.items()} == dict.fromkeys(masks, 0.5)
    assert len(masks) == 6


def test_the_larger_two_stay_as_they_are() -> None:
    model = parse(
        "g (float[n,4] x) => (float[n,3] y) { y = MatMul(x, w) }",
        w=np.array([[1, 9, -4], [-2, 8, 3], [3, 7, 2], [-4, 6, -1]], np.float32),
    )
    made, _ = sparse(model, MAGNITUDE, Context())
    assert weight(made, "w").tolist() == [[0, 9, -4], [0, 8, 3], [3, 0, 0], [-4, 0, 0]]


def test_what_is_hardly_there_counts_less() -> None:
    """Inputs 2 and 3 are small, whatever their weights."""
    w = np.array([[1], [1], [2], [2]], np.float32)
    model = parse("g (float[n,4] x) => (float[n,1] y) { y = MatMul(x, w) }", w=w)
    feeds = {"x": np.random.default_rng(0).normal(size=(50, 4)).astype(np.float32)}
    feeds["x"][:, 2:] *= 0.1
    ctx = Context(samples=Listed([feeds]))
    (by_size, _), (by_use, _) = (
        sparse(model, MAGNITUDE, ctx),
        sparse(model, SparsifyTwoFour(), ctx),
    )
    assert weight(by_size, "w").ravel().tolist() == [0, 0, 2, 2]
    assert weight(by_use, "w").ravel().tolist() == [1, 1, 0, 0]
    want, good, bad = (outputs(m, feeds)["y"] for m in (model, by_use, by_size))
    assert np.linalg.norm(good - want) < 0.3 * np.linalg.norm(bad - want)


def test_channels_of_grouped_convolutions() -> None:
    """Each group of outputs reads channels of its own."""
    w = np.ones((4, 4, 1, 1), np.float32)
    w[:, 2:] = 1.5
    model = parse("g (float[1,8,3,3] x) => (float[1,4,3,3] y) { y = Conv<group=2>(x, w) }", w=w)
    size = np.float32([9, 9, 1, 1, 1, 1, 9, 9]).reshape(1, 8, 1, 1)
    x = np.random.default_rng(0).normal(size=(1, 8, 3, 3)).astype(np.float32) * size
    made, _ = sparse(model, SparsifyTwoFour(), Context(samples=Listed([{"x": x}])))
    assert (weight(made, "w")[..., 0, 0] != 0).astype(int).tolist() == [
        [1, 1, 0, 0], [1, 1, 0, 0], [0, 0, 1, 1], [0, 0, 1, 1],
    ]  # fmt: skip


def test_what_stays_whole() -> None:
    model = random_model(
        """g (int64[1,5] ids) => (float[5,12] y) {
          [embedding] e = Gather(table, ids)
          h = MatMul(e, w1)
          [odd] o = MatMul(h, w2)
          [held] q = MatMul(o, w3)
          s = Squeeze(q)
          [head] y = Gemm<transB=1>(s, table)
        }""",
        table=(12, 8), w1=(8, 6), w2=(6, 8), w3=(8, 8),
    )  # fmt: skip

    def is_ignored(name: str, op_type: str) -> bool:
        return name == "held"

    ctx = Context(samples=samples(model, 3), is_ignored=is_ignored)
    before = weight(model, "table").copy()
    made, ctx = sparse(model, SparsifyTwoFour(), ctx)
    assert two_four_weights(made) == {"w1"}
    np.testing.assert_array_equal(weight(made, "table"), before)
    assert {skip.node: skip.reason for skip in ctx.skips} == {
        "odd": "it sums over 6 inputs, which is no multiple of 4",
        "head": "its weight is read by 'embedding' too, which needs it whole",
    }


def test_nothing_to_do_twice() -> None:
    model = cnn()
    once, _ = sparse(model, SparsifyTwoFour())
    ctx = Context(samples=samples(model, 6))
    twice, ctx = sparse(once, SparsifyTwoFour(), ctx)
    assert twice.to_bytes() == once.to_bytes()
    assert ctx.skips[-1].reason == "no Conv, Gemm or MatMul has a dense matrix to make sparse"
    assert ctx.notes == []


def test_samples_are_asked_for() -> None:
    with pytest.raises(DataError, match="what they multiply needs calibration samples"):
        sparse(cnn(), SparsifyTwoFour(), Context())


def test_zeros_stay_through_the_steps_behind() -> None:
    model = cnn()
    made, ctx = sparse(model, SparsifyTwoFour())
    steps: list[Pass] = [
        FoldBatchNorm(), EqualizeChannels(gain=1.0), SmoothActivations(alpha=0.5, outlier=1.0),
        QuantizeWeights(),
    ]  # fmt: skip
    after, _ = run_passes(made, steps, ctx)
    assert two_four_weights(after) >= {"w2", "w3"}
    for label in two_four_weights(after):
        params = quant_of(after.graph.graph.initializers[label])
        assert params is not None
        array = weight(after, label)
        np.testing.assert_array_equal(fake_quantize(array, params)[array == 0], 0)
