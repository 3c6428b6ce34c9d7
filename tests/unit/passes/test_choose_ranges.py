"""Ranges by the error at the outputs: what matters is kept, what does not is cut off."""

from __future__ import annotations

import numpy as np
import pytest
from graphs import Listed, nothing, parse, random_model, samples

from edgebm.backends.dialects import ONNXRUNTIME_CPU, OPENVINO_CPU, Dialect, Grid, cpu_dialects
from edgebm.backends.qdq import lower
from edgebm.errors import DataError
from edgebm.exec.collect import FloatRunner
from edgebm.exec.compare import Sqnr
from edgebm.ir.annotate import annotated, range_of, set_quant
from edgebm.ir.model import Model
from edgebm.passes.base import Context
from edgebm.passes.choose_ranges import ChooseRanges, _distinct
from edgebm.passes.driver import run_passes
from edgebm.passes.quantize_activations import QuantizeActivations
from edgebm.passes.quantize_weights import QuantizeWeights
from edgebm.quant.observe import (
    Entropy,
    Extremes,
    Histogram,
    MinMax,
    Mse,
    ObserverKind,
    Percentile,
    every_range,
)
from edgebm.quant.params import Range
from edgebm.search.build import values_to_observe

RNG = np.random.default_rng(0)
W = RNG.normal(size=(16, 8)).astype(np.float32)
TEXT = "g (float[1,40,16] x) => (float[1,40,8] y) { [fc] y = MatMul(x, w) }"


def outlying(matter: bool) -> Model:
    """Channel 0 of the input, which has the outliers, is read only where it matters."""
    weight = W.copy()
    weight[0] = 1.0 if matter else 0.0
    return parse(TEXT, w=weight)


def rows(count: int = 64, seed: int = 1) -> Listed:
    """Normal values; in every eighth sample one value of channel 0 is forty times as large."""
    rng = np.random.default_rng(seed)
    found = []
    for index in range(count):
        x = rng.normal(size=(1, 40, 16)).astype(np.float32)
        if index % 8 == 3:
            x[0, index % 40, 0] = 40.0
        found.append({"x": x})
    return Listed(found)


def context(given: Listed | None, dialect: Dialect = OPENVINO_CPU) -> Context:
    return Context(
        samples=given,
        observe=lambda m: values_to_observe(m, [dialect.runtime], nothing),
        lower=lambda m: lower(m, dialect, nothing)[0],
    )


def both(
    model: Model, observer: ObserverKind | Range, given: Listed, dialect: Dialect = OPENVINO_CPU
) -> tuple[Model, Model]:
    """The model with ranges of `observer`, or this one for x, and with chosen ones."""
    ctx = context(given, dialect)
    kind: ObserverKind = "minmax" if isinstance(observer, Range) else observer
    steps = [QuantizeWeights(), QuantizeActivations(observer=kind)]
    before, _ = run_passes(model, steps, ctx)
    if isinstance(observer, Range):
        set_quant(before.graph.graph.inputs[0], observer)
    after, _ = run_passes(before, [ChooseRanges()], ctx)
    assert annotated(after) == annotated(before)
    return before, after


def span(model: Model, name: str = "x") -> Range:
    values = {v.name: v for node in model.nodes() for v in node.outputs}
    values |= {v.name: v for v in model.graph.graph.inputs}
    found = range_of(values[name])
    assert found is not None
    return found


def kept_db(model: Model, decided: Model, dialect: Dialect = OPENVINO_CPU) -> float:
    plain = FloatRunner(model, ["y"])
    rounded = FloatRunner(lower(decided, dialect, nothing)[0], ["y"], plain=True)
    found = Sqnr(["y"])
    for feeds in rows(40, seed=7).feeds():
        found.add(plain.run(feeds), rounded.run(feeds))
    return found.db["y"]


NARROW = Range(-4.0, 4.0)
GRIDS = pytest.mark.parametrize("grid", [Grid(8, 8), Grid(7, 8), Grid(8, 7)], ids=str)


@GRIDS
def test_outliers_that_nobody_reads_are_cut_off(grid: Grid) -> None:
    model, dialect = outlying(matter=False), cpu_dialects("openvino", grid)[0]
    before, after = both(model, "minmax", rows(), dialect)
    assert span(before).high == 40.0
    assert span(after).high < 8.0
    gain = kept_db(model, after, dialect) - kept_db(model, before, dialect)
    assert gain > (3 if grid.weight_bits == 7 else 8)  # the weights' own noise is left


@GRIDS
def test_outliers_that_matter_are_kept(grid: Grid) -> None:
    model, dialect = outlying(matter=True), cpu_dialects("openvino", grid)[0]
    before, after = both(model, NARROW, rows(), dialect)
    assert span(after).high > 38.0
    gain = kept_db(model, after, dialect) - kept_db(model, before, dialect)
    assert gain > 10


def test_outliers_in_one_sample_of_many_are_seen() -> None:
    """A few samples at even distances would miss it: those that reach farthest are looked at."""
    given = list(rows(200).feeds())
    quiet = [{"x": np.clip(f["x"], -4, 4)} for f in given]
    quiet[101]["x"] = quiet[101]["x"].copy()
    quiet[101]["x"][0, :20, 0] = 40.0
    _, after = both(outlying(matter=True), NARROW, Listed(quiet))
    assert span(after).high > 38.0


@pytest.mark.parametrize("observer", ["minmax", "mse"])
def test_what_differs_by_less_than_half_a_step_is_one_range(observer: ObserverKind) -> None:
    """Signs alone: every observer names the same range, and today's is kept as it is."""
    signs = [{"x": np.sign(f["x"])} for f in rows(20).feeds()]
    before, after = both(outlying(matter=True), observer, Listed(signs))
    assert span(after) == span(before)
    today = Range(-1.0, 1.0)
    near, far = Range(-1.0, 1.001), Range(-1.0, 1.01)
    assert _distinct([today, near, far, Range(-1.0, 1.011), today]) == [today, far]


def test_gains_too_small_to_be_sure_of_keep_the_earlier_range() -> None:
    """Uniform values: cutting nothing off is almost as good as what `mse` cuts off."""
    even = [{"x": RNG.uniform(-1, 1, (1, 40, 16)).astype(np.float32)} for _ in range(32)]
    before, after = both(outlying(matter=True), "mse", Listed(even))
    assert span(after) == span(before)


def test_values_that_share_a_range_move_together() -> None:
    """ONNX Runtime rounds in front of a pool and behind it, on one grid."""
    text = """g (float[1,3,8,8] x) => (float[1,7] y) {
      [a] h = Conv<pads=[1,1,1,1]>(x, w1, b1)
      r = Relu(h)
      m = MaxPool<kernel_shape=[2,2], strides=[2,2]>(r)
      [b] i = Conv(m, w2, b2)
      s = Relu(i)
      f = Flatten(s)
      [c] y = Gemm(f, w3)
    }"""
    shapes = {"w1": (4, 3, 3, 3), "b1": (4,), "w2": (5, 4, 1, 1), "b2": (5,), "w3": (80, 7)}
    model = random_model(text, **shapes)
    before, after = both(model, "minmax", samples(model, 24), ONNXRUNTIME_CPU)
    assert annotated(before) == annotated(after)
    lowered, plan = lower(after, ONNXRUNTIME_CPU, nothing)
    assert {label: source.name for label, source in plan.points.items()}["m"] == "r"
    again, _ = run_passes(after, [ChooseRanges()], context(samples(model, 24), ONNXRUNTIME_CPU))
    assert lower(again, ONNXRUNTIME_CPU, nothing)[0].to_bytes() == lowered.to_bytes()


def test_equal_runs_choose_equal_ranges() -> None:
    spans = {span(both(outlying(matter=False), "minmax", rows())[1]) for _ in range(2)}
    assert len(spans) == 1


def test_values_that_this_placement_does_not_quantize_keep_their_range() -> None:
    text = """g (float[1,6,8] x) => (float[1,6,8] y) {
      q = MatMul(x, w)
      t = Transpose<perm=[0,2,1]>(q)
      y = MatMul(t, q)
    }"""
    model = random_model(text.replace("float[1,6,8] y", "float[1,8,8] y"), w=(8, 8))
    before, after = both(model, "minmax", samples(model, 12))
    assert "q" in annotated(before)  # for the products of two activations
    assert span(after, "q") == span(before, "q")


def test_why_it_is_skipped() -> None:
    model = outlying(matter=True)
    ctx = context(rows(8))
    run_passes(model, [ChooseRanges()], ctx)
    assert ctx.skips[-1].reason == "no activation was quantized before it"
    ids = parse(
        """g (float[1,40,16] x) => (int64[1,40] i) {
          h = MatMul(x, w)
          i = ArgMax<axis=2, keepdims=0>(h)
        }""",
        w=W,
    )
    run_passes(ids, [QuantizeWeights(), QuantizeActivations(), ChooseRanges()], ctx)
    assert ctx.skips[-1].reason == "the model has no float32 output to measure the error at"
    bare = Context(ctx.samples, observe=ctx.observe, lower=lambda m: m.clone())
    run_passes(model, [QuantizeActivations(), ChooseRanges()], bare)
    assert bare.skips[-1].reason == "the placement of this target quantizes no activation"


@pytest.mark.parametrize("given", [None, Listed([])])
def test_no_samples(given: Listed | None) -> None:
    with pytest.raises(DataError, match="choosing ranges needs calibration samples"):
        run_passes(outlying(matter=True), [ChooseRanges()], context(given))


def test_progress_counts_samples_and_values() -> None:
    ctx = context(rows(10))
    told: list[tuple[str, int, int]] = []
    steps = [QuantizeWeights(), QuantizeActivations()]
    before, _ = run_passes(outlying(matter=True), steps, ctx)
    ctx.progress = lambda step, done, total: told.append((step, done, total))
    run_passes(before, [ChooseRanges()], ctx)
    assert told == [("choose_ranges", k, 11) for k in range(1, 12)]


def test_one_histogram_tells_what_every_observer_would() -> None:
    seen = Histogram()
    every = [MinMax(), Mse(), Percentile(99.99), Percentile(99.9), Entropy()]
    for feeds in rows(16).feeds():
        for each in (seen, *every):
            each.update(feeds["x"])
    assert every_range(seen) == [each.result() for each in every]


def test_the_batches_that_reach_farthest() -> None:
    seen = Extremes(3)
    for index, (low, high) in enumerate([(-1, 1), (-9, 1), (-1, 2), (-1, 1), (-5, 1), (-1, 1.9)]):
        seen.update(np.array([low, high], np.float32))
        assert len(seen.farthest) == min(3, index + 1)
    # Over the whole range [-9, 2]: batch 1 and 2 are at its ends, 5 is nearer to one than 4.
    assert seen.farthest == [1, 2, 5]
