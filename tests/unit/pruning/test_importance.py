"""Importance: dead units, hand counts, and what fisher says against what cutting does."""

from __future__ import annotations

from importlib.resources import files
from pathlib import Path

import numpy as np
import pytest
from graphs import Array, outputs, parse, random_model, samples

from edgebm.errors import DataError, UnsupportedModel
from edgebm.exec.collect import float_run
from edgebm.importers import import_model
from edgebm.ir.edit import const
from edgebm.ir.model import Model
from edgebm.pruning.groups import find_groups
from edgebm.pruning.importance import Importance, importance
from edgebm.pruning.mask import masked

KINDS: tuple[Importance, ...] = ("magnitude", "activation", "taylor", "fisher")
NEEDS_TORCH = {"taylor", "fisher"}
RNG = np.random.default_rng(3)


def mlp() -> Model:
    """Twelve units; number 4 is read by zeros, number 7 is never made."""
    w1, w2 = (RNG.normal(size=size).astype(np.float32) for size in ((6, 12), (12, 5)))
    b = np.abs(RNG.normal(size=12)).astype(np.float32)
    w2[4] = 0
    w1[:, 7], b[7], w2[7] = 0, 0, 0
    return parse(
        """g (float[n,6] x) => (float[n,5] y) {
          h = Gemm(x, w1, b)
          r = Relu(h)
          y = MatMul(r, w2)
        }""",
        w1=w1, b=b, w2=w2,
    )  # fmt: skip


def scored(model: Model, kind: Importance, given: list[dict[str, Array]]) -> Array:
    """The scores of the only group of `model`."""
    groups = find_groups(model).groups
    ((label, found),) = importance(model, groups, kind, given).items()
    assert label == groups[0].name
    assert found.shape == (groups[0].units,)
    return found


@pytest.mark.parametrize("kind", KINDS)
def test_a_dead_unit_comes_last(kind: Importance) -> None:
    if kind in NEEDS_TORCH:
        pytest.importorskip("torch")
    model = mlp()
    found = scored(model, kind, list(samples(model, 40).feeds()))
    assert found[7] == 0
    assert np.isfinite(found).all()
    assert (np.delete(found, [4, 7]) > 0).all()
    if kind != "magnitude":  # which looks at what makes the unit too
        assert found[4] == 0


def test_magnitude_and_activation_by_hand() -> None:
    model = random_model(
        "g (float[n,3] x) => (float[n,2] y) { h = MatMul(x, a)\n r = Relu(h)\n y = MatMul(r, b) }",
        a=(3, 4), b=(4, 2),
    )  # fmt: skip
    a, b = (const(model.graph.graph.initializers[k]) for k in "ab")
    assert a is not None
    assert b is not None
    made, read = np.square(a).sum(0), np.square(b).sum(1)
    given = list(samples(model, 9).feeds())
    want = made / made.mean() + read / read.mean()
    np.testing.assert_allclose(scored(model, "magnitude", given), want / want.mean(), rtol=1e-5)
    mean = np.mean([np.maximum(feeds["x"] @ a, 0).mean(0) for feeds in given], axis=0)
    want = mean * np.sqrt(read)
    np.testing.assert_allclose(scored(model, "activation", given), want / want.mean(), rtol=1e-5)


def test_fisher_by_hand_where_a_depthwise_layer_makes_the_unit_anew() -> None:
    """One number comes out: what it changes by without a unit, in squares, is the score."""
    pytest.importorskip("torch")
    model = random_model(
        """g (float[1,2,5,5] x) => (float[1,1] y) {
          c = Conv(x, w1)
          d = Conv<group=6, pads=[1,1,1,1]>(c, w2)
          r = Relu(d)
          p = GlobalAveragePool(r)
          f = Flatten(p)
          y = MatMul(f, w3)
        }""",
        w1=(6, 2, 3, 3), w2=(6, 1, 3, 3), w3=(6, 1),
    )  # fmt: skip
    given = list(samples(model, 1).feeds())
    found = scored(model, "fisher", given)
    group = find_groups(model).groups[0].name
    whole = outputs(model, given[0])["y"]
    without = [
        outputs(masked(model.clone(), {group: np.array([unit])}), given[0])["y"]
        for unit in range(6)
    ]
    change = np.square(np.ravel(without) - whole.item())
    np.testing.assert_allclose(found / found.sum(), change / change.sum(), rtol=1e-3, atol=1e-9)
    first = scored(model, "taylor", given)
    np.testing.assert_allclose(np.square(first), found, rtol=1e-5)


def test_what_a_recurrent_layer_reads_of_itself_counts() -> None:
    """Nothing behind the layer reads unit 2, but all the others do, a step later."""
    pytest.importorskip("torch")
    model = random_model(
        """g (float[7,1,4] x) => (float[7,1,1,3] z) {
          h = LSTM<hidden_size=5>(x, w, r, b)
          z = MatMul(h, w2)
        }""",
        w=(1, 20, 4), r=(1, 20, 5), b=(1, 40), w2=(5, 3),
    )  # fmt: skip
    weights = model.graph.graph.initializers
    blind = np.array(const(weights["w2"]))
    blind[2] = 0
    model = parse(
        """g (float[7,1,4] x) => (float[7,1,1,3] z) {
          h = LSTM<hidden_size=5>(x, w, r, b)
          z = MatMul(h, w2)
        }""",
        **{k: np.array(const(weights[k])) for k in ("w", "r", "b")}, w2=blind,
    )  # fmt: skip
    found = scored(model, "fisher", list(samples(model, 20).feeds()))
    assert found[2] > 0


def digits(stem: str) -> tuple[Model, list[dict[str, Array]]]:
    """A trained model of the package, and samples of real digits."""
    folder = Path(str(files("edgebm") / "demo"))
    model = import_model(folder / f"{stem}.onnx")
    (label,) = (value.name for value in model.graph.graph.inputs)
    assert label is not None
    with np.load(folder / "calibration.npz") as stored:
        images = stored[stored.files[0]]
    shape = [d if isinstance(d, int) else 1 for d in model.graph.graph.inputs[0].shape or ()]
    return model, [{label: image.reshape(shape)} for image in images[:256]]


def answers(model: Model, given: list[dict[str, Array]]) -> Array:
    run = float_run(model)
    return np.concatenate([next(iter(run(feeds).values())) for feeds in given])


def loss(got: Array, want: Array) -> float:
    """Twice the KL divergence, and the relative squared error of what tells classes apart."""
    centred = [each - each.mean(-1, keepdims=True) for each in (got, want)]
    logs = [each - np.log(np.exp(each).sum(-1, keepdims=True)) for each in centred]
    divergence = (np.exp(logs[1]) * (logs[1] - logs[0])).sum(-1)
    relative = np.square(centred[0] - centred[1]).sum(-1) / np.square(centred[1]).sum(-1)
    return float(np.mean(2 * divergence + relative))


@pytest.mark.parametrize("stem", ["digits_cnn", "digits_transformer", "digits_lstm"])
def test_fisher_foretells_what_cutting_costs(stem: str) -> None:
    pytest.importorskip("torch")
    model, given = digits(stem)
    groups = [group for group in find_groups(model).groups if group.kind != "embedding"]
    scores = importance(model, groups, "fisher", given)
    want = answers(model, given)
    for group in groups:
        least = np.argsort(scores[group.name])[: max(1, group.units // 8)]
        cut = masked(model.clone(), {group.name: least})
        said, is_so = scores[group.name][least].sum(), loss(answers(cut, given), want)
        assert is_so / 5 < said < 5 * is_so, group.name


def test_equal_seeds_give_equal_scores() -> None:
    pytest.importorskip("torch")
    model = mlp()
    given = list(samples(model, 8).feeds())
    groups = find_groups(model).groups
    said: list[tuple[int, int]] = []
    first, again, other = (
        importance(
            model, groups, "fisher", given, seed=seed, progress=lambda *done: said.append(done)
        )[groups[0].name]
        for seed in (1, 1, 2)
    )
    np.testing.assert_array_equal(first, again)
    assert (first != other).any()
    assert said[:8] == [(i, 8) for i in range(1, 9)]


def test_a_sample_that_is_no_number() -> None:
    pytest.importorskip("torch")
    model = mlp()
    given = list(samples(model, 3).feeds())
    given[1] = {"x": np.full((4, 6), np.nan, np.float32)}
    with pytest.raises(DataError, match="calibration sample 1: output 'y' has NaN"):
        scored(model, "fisher", given)


def test_without_a_float_output() -> None:
    pytest.importorskip("torch")
    model = random_model(
        "g (float[n,3] x) => (int64[n,1] c) { h = MatMul(x, a)\n r = Relu(h)\n y = MatMul(r, b)\n"
        " c = ArgMax<axis=1>(y) }",
        a=(3, 4), b=(4, 2),
    )  # fmt: skip
    with pytest.raises(UnsupportedModel, match="no output with a gradient"):
        scored(model, "taylor", list(samples(model, 2).feeds()))
    assert (scored(model, "activation", list(samples(model, 2).feeds())) > 0).any()
