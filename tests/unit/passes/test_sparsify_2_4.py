"""Which weights become zero, of which layers, and that they stay zero."""

from __future__ import annotations

import numpy as np
import pytest
import students
from graphs import Listed, random_model

from edgebm.ir.edit import const
from edgebm.ir.model import Model
from edgebm.ir.zeros import zeros_to_keep
from edgebm.passes.base import Context
from edgebm.passes.distill import Distill
from edgebm.passes.driver import run_passes
from edgebm.passes.sparsify_2_4 import Sparsify24
from edgebm.pruning.semi_structured import is_2_4, masked_2_4, sparse_layers

RNG = np.random.default_rng(0)
IMAGES = [{"x": RNG.normal(size=(1, 3, 6, 6)).astype(np.float32)} for _ in range(4)]


def layers() -> Model:
    return random_model(
        """g (float[1,3,6,6] x) => (float[1,5] y) {
          [first] a = Conv<pads=[1,1,1,1]>(x, w1)
          [second] b = Conv<pads=[1,1,1,1]>(a, w2)
          p = GlobalAveragePool(b)
          f = Flatten(p)
          [third] c = Gemm<transB=1>(f, w3)
          [fourth] y = MatMul(c, w4)
        }""",
        w1=(8, 3, 3, 3), w2=(8, 8, 3, 3), w3=(12, 8), w4=(12, 5),
    )  # fmt: skip


@pytest.mark.parametrize("axis", [0, 1, -2])
def test_the_two_least_of_four_go(axis: int) -> None:
    weight = RNG.normal(size=(8, 12, 3)).astype(np.float32)
    made = masked_2_4(weight, axis)
    assert is_2_4(made, axis)
    assert not is_2_4(weight, axis)
    assert made.dtype == weight.dtype
    groups = np.moveaxis(weight, axis, -1).reshape(-1, 4)
    kept = np.moveaxis(made, axis, -1).reshape(-1, 4)
    for before, after in zip(groups, kept, strict=True):
        alive = after != 0
        assert alive.sum() == 2
        np.testing.assert_array_equal(before[alive], after[alive])
        assert np.abs(before[alive]).min() >= np.abs(before[~alive]).max()


def test_what_is_multiplied_with_little_counts_little() -> None:
    weight = np.array([[4.0, 3.0, 2.0, 1.0]])
    assert masked_2_4(weight, 1).tolist() == [[4.0, 3.0, 0.0, 0.0]]
    norms = np.array([0.1, 0.1, 1.0, 1.0])
    assert masked_2_4(weight, 1, norms).tolist() == [[0.0, 0.0, 2.0, 1.0]]


def test_layers_by_name_and_the_reasons_of_others() -> None:
    ctx = Context(samples=Listed(IMAGES))
    made = Sparsify24()(layers(), ctx)
    assert sparse_layers(made) == {"first": False, "second": True, "third": True, "fourth": True}
    ((skip),) = ctx.skips
    assert (skip.node, skip.step) == ("first", "sparsify_2_4")
    assert "3 channels" in skip.reason
    (note,) = ctx.notes
    assert "CPU runtimes do not" in note
    names = {n.inputs[1].name for n in made.nodes("Conv", "Gemm", "MatMul")}
    masks = zeros_to_keep(made, names - {"w1"})  # as training finds them
    assert set(masks) == names - {"w1"}
    for label, mask in masks.items():
        array = const(made.graph.graph.initializers[label])
        assert array is not None
        np.testing.assert_array_equal(mask, array != 0)


def test_samples_change_which_ones_go() -> None:
    scaled = [{"x": each["x"] * np.float32([1, 30, 1])[None, :, None, None]} for each in IMAGES]
    plain = Sparsify24()(layers(), Context())
    seen = Sparsify24()(layers(), Context(samples=Listed(scaled)))
    assert sparse_layers(plain) == sparse_layers(seen)
    one, other = (
        np.concatenate([const(n.inputs[1]).ravel() for n in m.nodes("Conv", "Gemm")])
        for m in (plain, seen)
    )
    assert (one != other).any()


def test_ignored_layers_stay() -> None:
    ctx = Context(is_ignored=lambda name, op: name == "third" or op == "Conv")
    assert sparse_layers(Sparsify24()(layers(), ctx)) == {
        "first": False,
        "second": False,
        "third": False,
        "fourth": True,
    }
    assert {skip.node for skip in ctx.skips} == {"first", "second", "third"}


def test_grouped_layers_beside_plain_ones() -> None:
    """They read the same value; what is known of its channels is for the plain one only."""
    model = random_model(
        """g (float[1,8,6,6] x) => (float[1,16,6,6] y) {
          [plain] a = Conv(x, w1)
          [grouped] b = Conv<group=2>(x, w2)
          y = Concat<axis=1>(a, b)
        }""",
        w1=(8, 8, 1, 1), w2=(8, 4, 1, 1),
    )  # fmt: skip
    images = [{"x": RNG.normal(size=(1, 8, 6, 6)).astype(np.float32)} for _ in range(3)]
    before = const(model.graph.graph.initializers["w2"])
    ctx = Context(samples=Listed(images))
    made = Sparsify24()(model, ctx)
    assert sparse_layers(made) == {"plain": True, "grouped": True}
    after = const(made.graph.graph.initializers["w2"])
    np.testing.assert_array_equal(after, masked_2_4(before, 1))
    assert not ctx.skips


def test_a_transposed_input_counts_by_size() -> None:
    model = random_model(
        "g (float[8,5] x) => (float[5,6] y) { [only] y = Gemm<transA=1>(x, w) }", w=(8, 6)
    )
    samples = [{"x": RNG.normal(size=(8, 5)).astype(np.float32)}]
    before = const(model.graph.graph.initializers["w"])
    made = Sparsify24()(model, Context(samples=Listed(samples)))
    np.testing.assert_array_equal(const(made.graph.graph.initializers["w"]), masked_2_4(before, 0))


def test_channels_without_anything_change_nothing_the_second_time() -> None:
    weight = RNG.normal(size=(6, 8)).astype(np.float32)
    norms = np.array([0, 0, 0, 1.0, 0, 0, 0, 0])
    once = masked_2_4(weight, 1, norms)
    assert is_2_4(once, 1)
    np.testing.assert_array_equal(masked_2_4(once, 1, norms), once)
    assert (once[:, 3] != 0).all()


@pytest.mark.parametrize("family", ["cnn", "bert"])
def test_training_keeps_two_of_four(family: str) -> None:
    pytest.importorskip("torch", reason="torch is not installed")
    model, taught = {
        "cnn": (students.cnn(8, 0), students.digits(40)),
        "bert": (students.bert(16, 0), students.sentences(40)),
    }[family]
    ctx = Context(samples=taught, teacher=model)
    sparse, _ = run_passes(model, [Sparsify24()], ctx)
    after, _ = run_passes(sparse, [Distill(steps=8, batch=8, rate=0.01)], ctx)
    held, before = after.graph.graph.initializers, sparse.graph.graph.initializers
    layers = sparse_layers(sparse)
    assert sparse_layers(after) == layers
    assert sum(layers.values()) >= 3
    changed = 0
    for node in sparse.nodes("Conv", "Gemm", "MatMul"):
        if layers.get(node.name or "?"):
            label = node.inputs[1].name
            now, then = const(held[label]), const(before[label])
            np.testing.assert_array_equal(now == 0, then == 0)
            changed += bool((now != then).any())
    assert changed >= 3
