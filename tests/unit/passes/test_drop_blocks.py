"""Whole blocks: which can go, what the model computes without them, and which go first."""

from __future__ import annotations

import numpy as np
import pytest
from graphs import Listed, outputs, random_model

from edgebm.ir.check import verify
from edgebm.ir.edit import replace_const
from edgebm.ir.model import Model
from edgebm.passes.base import Context
from edgebm.passes.driver import run_passes
from edgebm.passes.drop_blocks import DropBlocks
from edgebm.pruning.blocks import OutputError, drop, find_blocks

RNG = np.random.default_rng(0)
IMAGES = [{"x": RNG.normal(size=(1, 4, 6, 6)).astype(np.float32)} for _ in range(6)]
ROWS = [{"x": RNG.normal(size=(1, 5, 8)).astype(np.float32)} for _ in range(6)]


def resnet() -> Model:
    """Three blocks; the second has a shortcut with a convolution."""
    return random_model(
        """g (float[1,4,6,6] x) => (float[1,3] y) {
          a1 = Conv<pads=[1,1,1,1]>(x, w1)
          r1 = Relu(a1)
          b1 = Conv<pads=[1,1,1,1]>(r1, w2)
          [one] s1 = Add(b1, x)
          t1 = Relu(s1)
          a2 = Conv<pads=[1,1,1,1]>(t1, w3)
          h2 = Conv(t1, w4)
          [two] s2 = Add(a2, h2)
          t2 = Relu(s2)
          a3 = Conv<pads=[1,1,1,1]>(t2, w5)
          [three] s3 = Add(t2, a3)
          t3 = Relu(s3)
          p = GlobalAveragePool(t3)
          f = Flatten(p)
          y = Gemm<transB=1>(f, w6, b6)
        }""",
        w1=(4, 4, 3, 3), w2=(4, 4, 3, 3), w3=(6, 4, 3, 3), w4=(6, 4, 1, 1), w5=(6, 6, 3, 3),
        w6=(3, 6), b6=(3,),
    )  # fmt: skip


def transformer() -> Model:
    """One pre-norm layer: attention, then an MLP."""
    return random_model(
        """g (float[1,5,8] x) => (float[1,5,8] y) {
          n = LayerNormalization<axis=-1>(x, g1, b1)
          q = MatMul(n, wq)
          k = MatMul(n, wk)
          v = MatMul(n, wv)
          t = Transpose<perm=[0,2,1]>(k)
          s = MatMul(q, t)
          p = Softmax<axis=-1>(s)
          c = MatMul(p, v)
          o = MatMul(c, wo)
          [attention] r = Add(x, o)
          m = LayerNormalization<axis=-1>(r, g2, b2)
          u = MatMul(m, w1)
          e = Relu(u)
          d = MatMul(e, w2)
          [mlp] z = Add(r, d)
          y = LayerNormalization<axis=-1>(z, g3, b3)
        }""",
        g1=(8,), b1=(8,), wq=(8, 8), wk=(8, 8), wv=(8, 8), wo=(8, 8), g2=(8,), b2=(8,),
        w1=(8, 16), w2=(16, 8), g3=(8,), b3=(8,),
    )  # fmt: skip


def zeroed(model: Model, *weights: str) -> Model:
    """The model whose named weights are zero: what they make adds nothing."""
    for label in weights:
        value = model.graph.graph.initializers[label]
        shape = [int(size) for size in value.shape or ()]
        replace_const(value, np.zeros(shape, np.float32))
    return model


def test_what_is_only_added_is_a_block() -> None:
    found = {(block.add, block.operand) for block in find_blocks(resnet())}
    assert found == {("one", 1), ("two", 1), ("two", 0), ("three", 0)}
    found = {(block.add, block.operand) for block in find_blocks(transformer())}
    assert found == {("attention", 0), ("mlp", 0)}


def test_what_is_read_elsewhere_too_is_none() -> None:
    model = random_model(
        """g (float[1,4] x) => (float[1,4] y, float[1,4] z) {
          a = MatMul(x, w)
          s = Add(a, x)
          y = Tanh(s)
          z = Relu(a)
        }""",
        w=(4, 4),
    )
    assert find_blocks(model) == []
    end = random_model(
        "g (float[1,4] x) => (float[1,4] y) { a = MatMul(x, w) y = Add(a, x) }", w=(4, 4)
    )
    assert find_blocks(end) == []


@pytest.mark.parametrize(
    ("build", "adds", "weights", "samples"),
    [
        (resnet, ["one"], ["w2"], IMAGES),
        (resnet, ["three", "one"], ["w2", "w5"], IMAGES),
        (transformer, ["attention"], ["wo"], ROWS),
        (transformer, ["mlp"], ["w2"], ROWS),
        (transformer, ["attention", "mlp"], ["wo", "w2"], ROWS),
    ],
)
def test_without_a_block_is_with_zeros_added(
    build: object, adds: list[str], weights: list[str], samples: list[dict[str, np.ndarray]]
) -> None:
    assert callable(build)
    model = build()
    blocks = [block for add in adds for block in find_blocks(model) if block.add == add]
    made = drop(build(), blocks)
    verify(made)
    assert not {n.name for n in made.nodes()} & set(adds)
    assert made.param_count() < model.param_count()
    for feeds in samples:
        want, got = outputs(zeroed(build(), *weights), feeds), outputs(made, feeds)
        for label, expected in want.items():
            np.testing.assert_allclose(got[label], expected, rtol=1e-5, atol=1e-6)


def test_the_error_is_noise_over_signal() -> None:
    model = resnet()
    error = OutputError(model, IMAGES)
    assert error(model) == 0.0
    changed = zeroed(resnet(), "w2")
    want = [outputs(model, feeds)["y"] for feeds in IMAGES]
    got = [outputs(changed, feeds)["y"] for feeds in IMAGES]
    noise = sum(((a - b) ** 2).sum() for a, b in zip(want, got, strict=True))
    assert error(changed) == pytest.approx(noise / sum((a**2).sum() for a in want), rel=1e-4)


def test_the_block_that_matters_least_goes_first() -> None:
    model = resnet()
    tiny = model.graph.graph.initializers["w5"]
    assert tiny.const_value is not None
    replace_const(tiny, tiny.const_value.numpy() * np.float32(1e-3))
    ctx = Context(samples=Listed(IMAGES))
    (made, _) = run_passes(model, [DropBlocks(sparsity=0.3)], ctx)
    assert "three" not in {node.name for node in made.nodes()}
    assert "one" in {node.name for node in made.nodes()}
    (note,) = ctx.notes
    assert note.startswith("1 of 4 blocks were taken out")
    assert "multiply-accumulates" in note
    assert "three" in note


def test_measured_time_is_what_a_block_costs() -> None:
    """On a target where 1x1 convolutions take all the time, the shortcut goes."""

    def time_ms(layer: Model) -> float:
        shapes = [value.shape for value in layer.graph.graph.initializers.values()]
        return 5.0 if any(shape is not None and shape[-1] == 1 for shape in shapes) else 0.01

    ctx = Context(samples=Listed(IMAGES), time_ms=time_ms)
    (made, _) = run_passes(resnet(), [DropBlocks(sparsity=0.9)], ctx)
    assert "w4" not in made.graph.graph.initializers
    assert "% of their time" in ctx.notes[0]


def test_none_goes_where_none_may() -> None:
    ctx = Context(samples=Listed(IMAGES), is_ignored=lambda name, op: op == "Add")
    (made, _) = run_passes(resnet(), [DropBlocks()], ctx)
    assert made.param_count() == resnet().param_count()
    assert "only added" in ctx.skips[0].reason
    nothing = Context(samples=Listed(IMAGES))
    (made, _) = run_passes(resnet(), [DropBlocks(sparsity=0.0)], nothing)
    assert made.param_count() == resnet().param_count()
    assert nothing.notes == []
