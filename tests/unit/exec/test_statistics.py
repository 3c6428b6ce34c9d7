from __future__ import annotations

import math

import numpy as np
import pytest

from edgebm.exec.statistics import BINS, ActivationWatcher, spread, weight_statistics
from edgebm.quant.params import (
    QuantParams,
    Range,
    fake_quantize,
    range_params,
    symmetric_params,
)

RNG = np.random.default_rng(0)


def watcher(low: float, high: float, axis: int | None = None) -> ActivationWatcher:
    span = Range(low, high)
    return ActivationWatcher(span, range_params(span, bits=8, signed=False), axis)


def test_what_is_cut_off_counted_by_hand() -> None:
    seen = watcher(-1.0, 2.0)
    seen.update(np.array([[-1.5, -1.0, 0.0, 1.0]], np.float32))
    seen.update(np.array([[2.0, 2.5, 3.0, 1.0]], np.float32))
    found = seen.result()
    assert found.clipped == 3 / 8  # the ends of the range are inside
    assert (found.seen.low, found.seen.high) == (-1.5, 3.0)
    assert (found.histogram.low, found.histogram.high) == (-1.5, 3.0)
    assert sum(found.histogram.counts) == 8
    assert len(found.histogram.counts) == BINS


def test_a_range_always_covers_zero() -> None:
    seen = watcher(1.0, 2.0)  # its grid begins at 0
    seen.update(np.array([0.5, 1.5], np.float32))
    found = seen.result()
    assert found.clipped == 0
    assert found.histogram.low == 0.0


def test_most_values_lie_in_the_common_range() -> None:
    values = RNG.normal(size=20_000).astype(np.float32)
    values[7] = 400.0
    seen = watcher(-5.0, 400.0)
    seen.update(values)
    found = seen.result()
    assert found.common.low == pytest.approx(-2.58, abs=0.3)
    assert found.common.high == pytest.approx(2.58, abs=0.3)


def test_noise_of_the_grid_agrees_with_rounding_the_values_themselves() -> None:
    span = Range(-2.0, 2.5)  # some values lie outside
    params = range_params(span, bits=8, signed=False)
    values = RNG.normal(size=30_000).astype(np.float32)
    seen = ActivationWatcher(span, params)
    seen.update(values)
    noise = values - fake_quantize(values, params)
    want = 10 * math.log10(float((values**2).sum() / (noise**2).sum()))
    assert seen.result().db == pytest.approx(want, abs=0.2)


def test_order_and_size_of_the_batches_do_not_matter() -> None:
    values = RNG.normal(size=(64, 3, 5)).astype(np.float32)
    whole, parts = watcher(-1, 1, axis=1), watcher(-1, 1, axis=1)
    whole.update(values)
    for row in values[::-1]:
        parts.update(row[None])
    one, many = whole.result(), parts.result()
    assert one.histogram == many.histogram
    assert one.clipped == many.clipped > 0
    assert one.peaks is not None
    np.testing.assert_array_equal(one.peaks, many.peaks)


def test_peaks_of_channels_along_either_axis() -> None:
    image = np.zeros((1, 3, 2, 2), np.float32)
    image[0, 0, 1, 1], image[0, 1, 0, 0], image[0, 2] = -8.0, 2.0, 1.0
    first, last = watcher(-8, 2, axis=1), watcher(-8, 2, axis=-1)
    first.update(image)
    last.update(image)
    peaks = first.result().peaks
    assert peaks is not None
    assert peaks.tolist() == [8.0, 2.0, 1.0]
    assert spread(peaks) == 4.0
    assert last.result().peaks.tolist() == [2.0, 8.0]  # type: ignore[union-attr]


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_values_that_are_no_numbers_are_refused(bad: float) -> None:
    with pytest.raises(ValueError, match="NaN or infinite"):
        watcher(-1, 1).update(np.array([0.0, bad], np.float32))


def test_a_value_that_is_always_zero() -> None:
    seen = watcher(-1.0, 1.0)
    seen.update(np.zeros((4, 4), np.float32))
    found = seen.result()
    assert found.clipped == 0
    assert found.db == math.inf
    assert sum(found.histogram.counts) == 16


def test_weights() -> None:
    weight = np.array([[1.0, -1.0], [0.5, 0.25], [-40.0, 3.0]], np.float32)
    found = weight_statistics(weight, symmetric_params(weight, bits=8, axis=0))
    assert (found.low, found.high) == (-40.0, 3.0)
    assert found.channels == 3
    assert found.spread == 40.0
    assert sum(found.histogram.counts) == 6
    assert found.histogram.counts[0] == 1
    one_step = weight_statistics(weight, symmetric_params(weight, bits=8, axis=None))
    assert one_step.channels == 1
    assert one_step.db < found.db


def test_weights_that_are_all_equal_or_on_the_grid() -> None:
    params = QuantParams(8, True, np.float32([0.5]), np.zeros(1, np.int32), axis=0)
    found = weight_statistics(np.full((1, 4), 1.5, np.float32), params)
    assert found.db == math.inf
    assert sum(found.histogram.counts) == 4
    assert spread(np.zeros(3)) == 1.0
    assert spread(np.array([0.0, 0.0, 5.0])) == math.inf
