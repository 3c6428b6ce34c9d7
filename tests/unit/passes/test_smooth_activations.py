from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from graphs import Listed, outputs, parse, quantized, samples, sqnr_db

from edgebm.backends.dialects import OPENVINO_CPU
from edgebm.errors import DataError, RecipeError
from edgebm.exec.collect import FloatRunner
from edgebm.ir.model import Model
from edgebm.passes.base import Context
from edgebm.passes.driver import run_passes
from edgebm.passes.smooth_activations import SmoothActivations
from edgebm.recipe import load_recipe

RNG = np.random.default_rng(0)
PEAKS = np.ones(16, np.float32)
PEAKS[[3, 11]] = 80.0
W1, W2 = (RNG.normal(size=(16, n)).astype(np.float32) for n in (16, 8))
TEXT = "g (float[1,6,16] x) => (float[1,6,8] y) { h = Mul(x, peaks)\n [fc] y = MatMul(h, w) }"


def outlying(text: str = TEXT, **weights: np.ndarray) -> Model:
    return parse(text, **(weights or {"peaks": PEAKS, "w": W2}))


DEFAULT = SmoothActivations()
SEARCH = SmoothActivations(alpha="search")
both = pytest.mark.parametrize("step", [DEFAULT, SEARCH], ids=["fixed", "search"])


def smoothed(model: Model, step: SmoothActivations = DEFAULT) -> tuple[Model, list[str]]:
    ctx = Context(samples=samples(model, 8))
    after, _ = run_passes(model, [step], ctx)
    for feeds in samples(model, 2, seed=3).feeds():
        want, got = outputs(model, feeds), outputs(after, feeds)
        for name in want:
            np.testing.assert_allclose(got[name], want[name], rtol=1e-4, atol=1e-3)
    return after, [skip.reason for skip in ctx.skips]


@both
def test_outliers_move_into_the_weights_and_int8_gains(step: SmoothActivations) -> None:
    model = outlying()
    after, reasons = smoothed(model, step)
    assert reasons == []
    assert [node.op_type for node in after.nodes()] == ["Mul", "Mul", "MatMul"]
    feeds = next(iter(samples(model, 1, seed=5).feeds()))
    # The values that matter are those of the small channels too: weigh them alike.
    small = np.where(PEAKS > 1, 0.0, 1.0).astype(np.float32)
    feeds = {"x": feeds["x"] * small}
    want = outputs(model, feeds)["y"]
    gained = []
    for graph in (model, after):
        lowered, _ = quantized(graph, OPENVINO_CPU, calibration=samples(model, 8))
        gained.append(sqnr_db(want, FloatRunner(lowered, ["y"], plain=True).run(feeds)["y"]))
    assert gained[1] > gained[0] + 10


def test_a_layer_normalization_in_front_takes_the_division() -> None:
    model = outlying(
        """g (float[1,6,16] x) => (float[1,6,16] y, float[1,6,8] z) {
          n = LayerNormalization<axis=-1>(x, peaks, shift)
          y = MatMul(n, w1)
          z = MatMul(n, w2)
        }""",
        peaks=PEAKS,
        shift=np.ones(16, np.float32),
        w1=W1,
        w2=W2,
    )
    after, reasons = smoothed(model)
    assert reasons == []
    kinds = [node.op_type for node in after.nodes()]
    assert kinds == ["LayerNormalization", "MatMul", "MatMul"]


def test_a_layer_normalization_that_others_read_is_left_alone() -> None:
    model = outlying(
        """g (float[1,6,16] x) => (float[1,6,16] y) {
          n = LayerNormalization<axis=-1>(x, peaks, shift)
          h = MatMul(n, w1)
          y = Add(h, n)
        }""",
        peaks=PEAKS,
        shift=np.ones(16, np.float32),
        w1=W1,
    )
    after, _ = smoothed(model)
    assert sorted(node.op_type for node in after.nodes()) == [
        "Add", "LayerNormalization", "MatMul", "Mul",
    ]  # fmt: skip


def test_a_weight_that_is_shared_keeps_its_value_for_the_other_reader() -> None:
    model = outlying(
        """g (float[1,6,16] x) => (float[1,6,8] y, float[1,6,8] z) {
          h = Mul(x, peaks)
          y = MatMul(h, w)
          z = MatMul(x, w)
        }""",
        peaks=PEAKS,
        w=W2,
    )
    _, reasons = smoothed(model)
    assert len(reasons) == 1


def test_without_outliers_it_says_so() -> None:
    model = outlying(peaks=np.ones(16, np.float32), w=W2)
    after, reasons = smoothed(model)
    assert after.to_bytes() == model.to_bytes()
    assert [reason.startswith("no channel of its input stands out") for reason in reasons] == [
        True
    ]


@pytest.mark.parametrize("dead", ["activation", "weight"])
def test_channels_of_zeros_are_kept(dead: str) -> None:
    peaks, weight = PEAKS.copy(), W2.copy()
    if dead == "activation":
        peaks[5] = 0.0
    else:
        weight[5] = 0.0
    smoothed(outlying(peaks=peaks, w=weight))


def test_one_vector_a_sample_is_left_alone() -> None:
    model = outlying(
        "g (float[1,16] x) => (float[1,8] y) { h = Mul(x, peaks)\n y = MatMul(h, w) }",
        peaks=PEAKS,
        w=W2,
    )
    after, reasons = smoothed(model)
    assert reasons == []
    assert after.to_bytes() == model.to_bytes()


def test_ignored_products_are_left_alone() -> None:
    ctx = Context(samples=samples(outlying(), 4), is_ignored=lambda name, op: name == "fc")
    after, _ = run_passes(outlying(), [SmoothActivations()], ctx)
    assert after.to_bytes() == outlying().to_bytes()


@pytest.mark.parametrize("given", [None, Listed([])])
def test_no_samples(given: Listed | None) -> None:
    with pytest.raises(DataError, match="needs? calibration samples|no calibration samples"):
        run_passes(outlying(), [SmoothActivations()], Context(samples=given))


def test_search_takes_a_gain_that_the_threshold_does_not_see() -> None:
    """Channels three times the others: below `outlier`, and worth a division all the same."""
    peaks = np.where(np.arange(16) % 4 == 0, 3.0, 1.0).astype(np.float32)
    model = outlying(peaks=peaks, w=(W2 / peaks[:, None] ** 2).astype(np.float32))
    _, reasons = smoothed(model)
    assert "stands out" in reasons[0]
    after, reasons = smoothed(model, SEARCH)
    assert reasons == []
    assert after.to_bytes() != model.to_bytes()


def test_search_says_what_a_group_would_gain() -> None:
    model = outlying(peaks=np.ones(16, np.float32), w=np.sign(W2))
    even = [{"x": RNG.uniform(-1, 1, (1, 6, 16)).astype(np.float32)} for _ in range(64)]
    ctx = Context(samples=Listed(even))
    after, _ = run_passes(model, [SEARCH], ctx)
    assert after.to_bytes() == model.to_bytes()
    (skip,) = ctx.skips
    assert skip.reason.startswith("it would take only ")
    assert skip.reason.endswith("% off the error of its products")


def test_search_follows_the_seed_and_nothing_else() -> None:
    model = outlying()
    found = []
    for seed in (0, 0, 1):
        ctx = Context(samples=samples(model, 40), seed=seed)
        found.append(run_passes(model, [SEARCH], ctx)[0].to_bytes())
    assert found[0] == found[1]


@pytest.mark.parametrize("text", ["alpha: 0.7", "alpha: search", "alpha: 1"])
def test_the_key_in_a_recipe(tmp_path: Path, text: str) -> None:
    path = tmp_path / "r.yaml"
    path.write_text(f"version: 1\nsteps:\n  - kind: smooth_activations\n    {text}\n")
    (step,) = load_recipe(path).steps
    assert isinstance(step, SmoothActivations)
    assert step.alpha in {0.7, "search", 1.0}


@pytest.mark.parametrize("text", ["alpha: 1.5", "alpha: seek", "alpha: '0.7'", "alpha: yes"])
def test_wrong_values_in_a_recipe(tmp_path: Path, text: str) -> None:
    path = tmp_path / "r.yaml"
    path.write_text(f"version: 1\nsteps:\n  - kind: smooth_activations\n    {text}\n")
    with pytest.raises(RecipeError) as caught:
        load_recipe(path)
    assert {line for line, _, _ in caught.value.faults} == {4}
