from __future__ import annotations

import numpy as np
import pytest
from graphs import Listed, parse, random_model, samples

from edgebm.errors import DataError, PassError
from edgebm.ir.annotate import annotated, range_of
from edgebm.ir.model import Model
from edgebm.passes.base import Context
from edgebm.passes.driver import run_passes
from edgebm.passes.quantize_activations import QuantizeActivations

TEXT = """g (float[1,6] x) => (float[1,4] y) {
  h = MatMul(x, w)
  r = Relu(h)
  y = MatMul(r, u)
}"""


def model() -> Model:
    return random_model(TEXT, w=(6, 6), u=(6, 4))


def context(watched: set[str], feeds: Listed | None) -> Context:
    return Context(samples=feeds, observe=lambda m: frozenset(watched))


def test_every_watched_value_gets_its_range() -> None:
    given = samples(model(), 20)
    ctx = context({"x", "r"}, given)
    after, _ = run_passes(model(), [QuantizeActivations(observer="minmax")], ctx)
    assert annotated(after) == {"x", "r"}
    everything = np.concatenate([feeds["x"] for feeds in given.feeds()])
    span = range_of(after.graph.graph.inputs[0])
    assert span is not None
    assert (span.low, span.high) == (float(everything.min()), float(everything.max()))


def test_progress_counts_the_samples() -> None:
    ctx = context({"x"}, samples(model(), 5))
    told: list[tuple[str, int, int]] = []
    ctx.progress = lambda step, done, total: told.append((step, done, total))
    run_passes(model(), [QuantizeActivations()], ctx)
    assert told == [("quantize_activations", k, 5) for k in range(1, 6)]


@pytest.mark.parametrize("given", [None, Listed([])])
def test_no_samples(given: Listed | None) -> None:
    with pytest.raises(DataError, match="needs calibration samples") as caught:
        run_passes(model(), [QuantizeActivations()], context({"x"}, given))
    assert "-d samples.npz" in caught.value.hint


def test_nothing_to_watch_is_said() -> None:
    ctx = context(set(), samples(model()))
    after, _ = run_passes(model(), [QuantizeActivations()], ctx)
    assert annotated(after) == frozenset()
    assert "nothing that can run in int8" in ctx.skips[0].reason


def test_a_value_that_is_always_zero_is_said_and_gets_a_range() -> None:
    dead = parse(TEXT, w=-np.ones((6, 6), np.float32), u=np.ones((6, 4), np.float32))
    feeds = [{"x": np.full((1, 6), k, np.float32)} for k in range(1, 4)]
    ctx = context({"x", "r"}, Listed(feeds))
    after, _ = run_passes(dead, [QuantizeActivations()], ctx)
    assert [(skip.node, skip.reason[:17]) for skip in ctx.skips] == [("r", "the value is zero")]
    assert annotated(after) == {"x", "r"}


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_a_bad_sample_is_named(bad: float) -> None:
    feeds = [{"x": np.ones((1, 6), np.float32)} for _ in range(3)]
    feeds[2]["x"][0, 4] = bad
    with pytest.raises(DataError, match=r"calibration sample 2, value '\w+': .*NaN or infinite"):
        run_passes(model(), [QuantizeActivations()], context({"x", "r"}, Listed(feeds)))


def test_a_sample_of_another_shape_is_an_error_about_the_data() -> None:
    feeds = Listed([{"x": np.ones((1, 5), np.float32)}])
    with pytest.raises(DataError, match="does not run the model on a sample"):
        run_passes(model(), [QuantizeActivations()], context({"r"}, feeds))


def test_values_without_an_element_are_an_error_that_says_so() -> None:
    free = random_model(
        "g (float[n,6] x) => (float[n,4] y) { h = Relu(x)\n y = MatMul(h, u) }", u=(6, 4)
    )
    feeds = Listed([{"x": np.ones((0, 6), np.float32)}])
    with pytest.raises((DataError, PassError), match="no value was seen"):
        run_passes(free, [QuantizeActivations()], context({"h"}, feeds))
