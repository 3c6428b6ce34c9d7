"""Mean errors of layers, against the same computed by hand."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from graphs import Listed, decide, nothing, random_model, samples

from edgebm.backends.dialects import ONNXRUNTIME_CPU, OPENVINO_CPU, Dialect
from edgebm.backends.qdq import lower
from edgebm.exec.collect import FloatRunner
from edgebm.exec.shifts import _shrunk, final_shifts, output_shifts
from edgebm.ir.annotate import range_of, set_quant
from edgebm.ir.edit import const
from edgebm.ir.model import Model
from edgebm.quant.params import fake_quantize, range_params

CNN = """g (float[1,3,8,8] x) => (float[1,5] y) {
  [a] h = Conv<pads=[1,1,1,1]>(x, w1, b1)
  r = Relu(h)
  m = MaxPool<kernel_shape=[2,2], strides=[2,2]>(r)
  [b] i = Conv<pads=[1,1,1,1]>(m, w2)
  s = Relu(i)
  f = Flatten(s)
  [c] y = Gemm(f, w3, b3)
}"""
SHAPES = {"w1": (4, 3, 3, 3), "b1": (4,), "w2": (4, 4, 3, 3), "w3": (64, 5), "b3": (5,)}


def two(dialect: Dialect = OPENVINO_CPU, count: int = 40) -> tuple[Model, Model, Listed]:
    """The decided model, its lowered form, and samples."""
    model = random_model(CNN, **SHAPES)
    given = samples(model, count)
    decided, _ = decide(model, [dialect], given)
    return decided, lower(decided, dialect, nothing)[0], given


def tick() -> None:
    """No progress is shown."""


@pytest.mark.parametrize("dialect", [OPENVINO_CPU, ONNXRUNTIME_CPU], ids=lambda d: d.name)
def test_every_layer_with_integers_has_its_shift(dialect: Dialect) -> None:
    decided, lowered, given = two(dialect)
    done: list[int] = []
    found = output_shifts(lowered, decided, given.feeds(), lambda: done.append(1))
    assert {name: shift.shape for name, shift in found.items()} == {
        "a": (4,),
        "b": (4,),
        "c": (5,),
    }
    assert len(done) == 40


def test_the_shift_of_the_first_layer_by_hand() -> None:
    decided, lowered, given = two()
    plain, rounded = FloatRunner(decided, ["h"]), FloatRunner(lowered, ["h"], plain=True)
    means = [(rounded.run(f)["h"] - plain.run(f)["h"]).mean(axis=(0, 2, 3)) for f in given.feeds()]
    table = np.array(means, np.float64)
    want = _shrunk(table.mean(axis=0), (table**2).mean(axis=0), len(table))
    np.testing.assert_allclose(output_shifts(lowered, decided, given.feeds(), tick)["a"], want,
                               rtol=1e-3, atol=1e-6)  # fmt: skip


@pytest.mark.parametrize("dialect", [OPENVINO_CPU, ONNXRUNTIME_CPU], ids=lambda d: d.name)
def test_rounding_in_front_of_a_pool_counts(dialect: Dialect) -> None:
    """A range that cuts off half of what layer b reads, behind a MaxPool, moves its mean."""
    decided, _, given = two(dialect)
    values = {v.name: v for node in decided.nodes() for v in node.outputs}
    span = range_of(values["r"])
    assert span is not None
    set_quant(values["r"], replace(span, high=span.high / 4))
    lowered, _ = lower(decided, dialect, nothing)
    found = output_shifts(lowered, decided, given.feeds(), tick)["b"]
    weight = const(next(n for n in decided.nodes() if n.name == "b").inputs[1])
    assert weight is not None
    runner = FloatRunner(lowered, ["r"], plain=True)
    grid = range_params(range_of(values["r"]), bits=8, signed=False)  # type: ignore[arg-type]
    lost = 0.0
    for feeds in given.feeds():
        r = runner.run(feeds)["r"]
        blocks = r.reshape(4, 4, 2, 4, 2).max(axis=(2, 4))
        off = fake_quantize(blocks, grid) - blocks
        # Border positions see fewer taps; a mean over all of them is near enough.
        lost = lost + off.mean(axis=(1, 2))
    expected = weight.sum(axis=(2, 3)) @ (np.asarray(lost) / len(given))
    assert np.abs(found).max() > 0.05
    assert np.corrcoef(found, expected)[0, 1] > 0.97


def test_what_is_left_at_the_outputs() -> None:
    decided, lowered, given = two()
    found = final_shifts(lowered, decided, given.feeds(), tick)
    plain, rounded = FloatRunner(decided, ["y"]), FloatRunner(lowered, ["y"], plain=True)
    table = np.array([rounded.run(f)["y"][0] - plain.run(f)["y"][0] for f in given.feeds()])
    want = _shrunk(table.mean(axis=0), (table**2).mean(axis=0), len(table))
    assert list(found) == ["c"]
    np.testing.assert_allclose(found["c"], want, rtol=1e-3, atol=1e-7)


def test_chance_is_left_out_and_what_is_sure_is_kept() -> None:
    rng = np.random.default_rng(0)
    draws = rng.normal(size=(50, 400))
    means = _shrunk(draws.mean(axis=0), (draws**2).mean(axis=0), 50)
    assert (means == 0).mean() > 0.5  # within one standard error
    kept = means != 0
    assert (np.abs(means[kept]) < np.abs(draws.mean(axis=0)[kept])).all()
    sure = draws + 20
    shrunk = _shrunk(sure.mean(axis=0), (sure**2).mean(axis=0), 50)
    np.testing.assert_allclose(shrunk, sure.mean(axis=0), rtol=1e-3)


def test_shrinking_brings_small_means_nearer_to_the_truth() -> None:
    rng = np.random.default_rng(1)
    truth = rng.normal(size=500) * 0.1
    draws = truth + rng.normal(size=(30, 500))
    mean = draws.mean(axis=0)
    shrunk = _shrunk(mean, (draws**2).mean(axis=0), 30)
    assert ((shrunk - truth) ** 2).mean() < 0.8 * ((mean - truth) ** 2).mean()


def test_zeros_and_single_samples() -> None:
    with np.errstate(all="raise"):
        assert not _shrunk(np.zeros(3), np.array([0.0, 9.0, 1e6]), 10).any()
    decided, lowered, given = two(count=1)
    assert output_shifts(lowered, decided, given.feeds(), tick) == {}
