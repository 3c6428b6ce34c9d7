"""Multiply-accumulates against hand counts, and where cutting is said to pay."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from graphs import outputs, random_model

from edgebm.ir.edit import const
from edgebm.ir.model import Model
from edgebm.pruning.allocate import Budget, cheapest, step_of, uniform, width_step
from edgebm.pruning.cost import Costs
from edgebm.pruning.cut import cut
from edgebm.pruning.group import Group, Place
from edgebm.pruning.groups import find_groups
from edgebm.pruning.macs import macs, terms_of, value_shapes
from edgebm.pruning.one_layer import nothing, one_layer

RNG = np.random.default_rng(0)
IMAGE = {"x": RNG.normal(size=(1, 3, 8, 8)).astype(np.float32)}


def chain() -> Model:
    """Two convolutions and a product: 24 and 48 channels that can be cut."""
    return random_model(
        """g (float[n,3,8,8] x) => (float[n,10] y) {
          a = Conv<pads=[1,1,1,1]>(x, w1, b1)
          ra = Relu(a)
          b = Conv<pads=[1,1,1,1], strides=[2,2]>(ra, w2)
          rb = Relu(b)
          p = GlobalAveragePool(rb)
          f = Flatten(p)
          y = Gemm<transB=1>(f, w3, b3)
        }""",
        w1=(24, 3, 3, 3), b1=(24,), w2=(48, 24, 3, 3), w3=(10, 48), b3=(10,),
    )  # fmt: skip


FIRST, SECOND, LAST = 24 * 3 * 9 * 64, 48 * 24 * 9 * 16, 480


def test_hand_count_of_a_cnn() -> None:
    assert macs(chain(), IMAGE) == FIRST + SECOND + LAST


def test_hand_count_of_other_layers() -> None:
    lstm = random_model(
        "g (float[5,2,4] x) => (float[5,1,2,3] y) { y = LSTM<hidden_size=3>(x, w, r) }",
        w=(1, 12, 4),
        r=(1, 12, 3),
    )
    assert macs(lstm, {"x": np.zeros((5, 2, 4), np.float32)}) == 5 * 2 * 12 * (4 + 3)
    attention = random_model(
        """g (float[2,6,8] x) => (float[2,6,8] y) {
          q = MatMul(x, w)
          t = Transpose<perm=[0,2,1]>(x)
          s = MatMul(q, t)
          y = MatMul(s, x)
        }""",
        w=(8, 8),
    )
    feeds = {"x": np.zeros((2, 6, 8), np.float32)}
    assert macs(attention, feeds) == 2 * 6 * 8 * 8 + 2 * (2 * 6 * 6 * 8)
    up = random_model(
        "g (float[1,4,5,5] x) => (float[1,6,10,10] y) { y = ConvTranspose<strides=[2,2]>(x, w) }",
        w=(4, 6, 2, 2),
    )
    assert macs(up, {"x": np.zeros((1, 4, 5, 5), np.float32)}) == 4 * 6 * 4 * 25
    depthwise = random_model(
        "g (float[1,4,5,5] x) => (float[1,4,5,5] y) { y = Conv<group=4, pads=[1,1,1,1]>(x, w) }",
        w=(4, 1, 3, 3),
    )
    assert macs(depthwise, {"x": np.zeros((1, 4, 5, 5), np.float32)}) == 4 * 9 * 25


def test_what_is_left_is_what_the_cut_model_has() -> None:
    model = chain()
    groups = find_groups(model).groups
    costs = Costs(model, groups, IMAGE, None)
    removed = {group.name: np.arange(7 + i) for i, group in enumerate(groups)}
    counts = {label: len(units) for label, units in removed.items()}
    assert costs.macs({}) == macs(model, IMAGE)
    assert costs.macs(counts) == pytest.approx(macs(cut(model, removed), IMAGE))
    for group in groups:
        touched = [t for t in costs.terms if group.name in t.groups]
        assert costs.macs({}, group.name) == sum(t.macs for t in touched)


@pytest.mark.parametrize(
    ("text", "weights", "shape"),
    [
        (
            "g (float[1,4,6,6] x) => (float y) { y = Conv(x, w) }",
            {"w": (6, 4, 3, 3)},
            (1, 4, 6, 6),
        ),
        (
            "g (float[1,4,6,6] x) => (float y) { y = Conv<group=4>(x, w) }",
            {"w": (4, 1, 3, 3)},
            (1, 4, 6, 6),
        ),
        ("g (float[1,5,8] x) => (float y) { y = MatMul(x, w) }", {"w": (8, 6)}, (1, 5, 8)),
        ("g (float[1,8] x) => (float y) { y = Gemm<transB=1>(x, w) }", {"w": (6, 8)}, (1, 8)),
        (
            "g (float[7,1,4] x) => (float y) { y = GRU<hidden_size=6>(x, w, r) }",
            {"w": (1, 18, 4), "r": (1, 18, 6)},
            (7, 1, 4),
        ),
    ],
)
def test_a_layer_alone_computes_at_its_width(
    text: str, weights: dict[str, tuple[int, ...]], shape: tuple[int, ...]
) -> None:
    ((node,), *_) = [list(random_model(text.replace("float y", "float[] y"), **weights).nodes())]
    alone = one_layer(node, dict(enumerate(weights.values(), start=1)), shape)
    assert alone is not None
    assert macs(alone, {"x": np.zeros(shape, np.float32)}) > 0
    twin = one_layer(node, dict(enumerate(weights.values(), start=1)), shape)
    assert twin is not None
    assert alone.to_bytes() == twin.to_bytes()
    assert outputs(nothing(), {"x": np.ones((1, 8), np.float32)})["y"].shape == (1, 8)


def test_width_steps() -> None:
    assert [width_step(n, 16) for n in (64, 32, 31, 16, 9, 2, 1)] == [16, 16, 8, 8, 4, 1, 1]
    assert width_step(100, 1) == 1


def test_heads_are_wide_already() -> None:
    """Heads of 8 numbers go one by one where widths are multiples of 16: by twos."""

    def heads(width: int, units: int) -> Group:
        place = Place("wo", 0, np.arange(width * units).reshape(units, width))
        return Group("q", "heads", units, (), (place,), (place,), (place,), ("q",))

    assert [step_of(heads(8, 12), n) for n in (1, 8, 16, 32)] == [1, 1, 2, 4]
    assert step_of(heads(32, 12), 16) == 1
    assert step_of(heads(1, 64), 16) == 16


def scores_of(model: Model) -> dict[str, np.ndarray]:
    return {g.name: RNG.uniform(0.5, 1.5, g.units) for g in find_groups(model).groups}


@pytest.mark.parametrize("round_to", [1, 8])
@pytest.mark.parametrize("sparsity", [0.0, 0.3, 0.6])
def test_the_budget_is_reached_within_a_step(sparsity: float, round_to: int) -> None:
    model = chain()
    groups, scores = find_groups(model).groups, scores_of(model)
    costs = Costs(model, groups, IMAGE, None)
    removed = cheapest(groups, scores, costs, Budget(sparsity, round_to)).removed
    left = macs(cut(model, removed), IMAGE) / macs(chain(), IMAGE)
    assert left <= 1 - sparsity
    # One step of the widest layers is the most that may be too much.
    assert left > 1 - sparsity - round_to * (FIRST + SECOND) / 24 / macs(chain(), IMAGE)
    for group in groups:
        units = removed.get(group.name, np.arange(0))
        assert (group.units - len(units)) % width_step(group.units, round_to) == 0
        rest = np.setdiff1d(np.arange(group.units), units)
        if len(units):
            assert scores[group.name][units].max() <= scores[group.name][rest].min()


def test_units_that_matter_less_go_first() -> None:
    model = chain()
    groups = find_groups(model).groups
    scores = {groups[0].name: np.full(24, 100.0), groups[1].name: np.full(48, 1.0)}
    costs = Costs(model, groups, IMAGE, None)
    removed = cheapest(groups, scores, costs, Budget(0.3)).removed
    assert list(removed) == [groups[1].name]


def test_the_same_fraction_of_each_group() -> None:
    model = chain()
    groups = find_groups(model).groups
    removed = uniform(groups, scores_of(model), Budget(0.5, 4)).removed
    assert {label: len(units) for label, units in removed.items()} == {
        groups[0].name: 12,
        groups[1].name: 24,
    }
    everything = uniform(groups, scores_of(model), Budget(0.99, 8)).removed
    assert {label: len(units) for label, units in everything.items()} == {
        groups[0].name: 16,
        groups[1].name: 40,
    }


def test_what_saves_no_time_is_not_cut() -> None:
    """A target whose kernels take 24 channels for 32: only the second group pays."""
    model = chain()
    groups = find_groups(model).groups

    def time_ms(layer: Model) -> float:
        w = next(iter(layer.graph.graph.initializers.values()), None)
        if w is None:
            return 0.001
        rows, columns = w.shape[0], w.shape[1]
        if isinstance(rows, int) and isinstance(columns, int) and columns != 3:
            return 0.001 + 1e-4 * rows
        return 0.5

    costs = Costs(model, groups, IMAGE, time_ms)
    found = cheapest(groups, scores_of(model), costs, Budget(0.4, 8))
    assert set(found.removed) == {groups[1].name}
    ((label, reason),) = found.unpaid
    assert label == groups[0].name
    assert "less work" in reason
    assert "ms on the target" in reason
    by_time = cheapest(groups, scores_of(model), costs, Budget(0.003, 8, by_time=True))
    before, gone = costs.ms({}), {k: len(v) for k, v in by_time.removed.items()}
    assert costs.ms(gone) <= (1 - 0.003) * before


def test_noise_of_a_measurement_ends_nothing() -> None:
    """One step of a wide group saves less than two measurements of the same differ by."""
    model = random_model(
        "g (float[1,16] x) => (float[1,16] y) { h = MatMul(x, w)\n y = MatMul(h, u) }",
        w=(16, 1024),
        u=(1024, 16),
    )
    groups = find_groups(model).groups
    calls = itertools.count()

    def time_ms(layer: Model) -> float:
        weights = [const(v) for v in layer.graph.graph.initializers.values()]
        numbers = sum(w.size for w in weights if w is not None)
        return 0.001 + 1e-5 * numbers * (1.01 if next(calls) % 2 else 0.99)

    x = {"x": np.zeros((1, 16), np.float32)}
    costs = Costs(model, groups, x, time_ms)
    for by_time in (False, True):
        found = cheapest(groups, scores_of(model), costs, Budget(0.6, 8, by_time))
        assert not found.unpaid
        (gone,) = found.removed.values()
        assert 0.58 * 1024 <= len(gone) <= 0.64 * 1024


def test_shared_shapes() -> None:
    model = chain()
    shapes = value_shapes(model, IMAGE)
    assert shapes["x"] == (1, 3, 8, 8)
    terms = terms_of(model, find_groups(model).groups, shapes)
    assert [term.macs for term in terms] == [FIRST, SECOND, LAST]
    assert [len(term.groups) for term in terms] == [1, 2, 1]
