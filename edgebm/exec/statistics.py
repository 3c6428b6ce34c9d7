"""What tensors look like beside the integer grid they get: ranges, histograms, what is cut off."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgebm.exec.compare import decibels
from edgebm.quant.observe import Histogram
from edgebm.quant.params import QuantParams, Range, fake_quantize

BINS = 64
_COMMON = 0.99  # share of the values that lie in the range called common


@dataclass(frozen=True, slots=True)
class Counts:
    """How many values lie in each of BINS equal bins over [low, high]."""

    low: float
    high: float
    counts: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class ActivationStatistics:
    """One activation over all samples.

    Attributes:
        seen: smallest and largest value.
        common: the range without the outermost half percent of the values at either end.
        clipped: fraction of the values outside the calibrated range, 0 to 1.
        db: signal over the noise that rounding and clipping add to it, in dB; infinity for none.
        peaks: the largest magnitude in each channel, shape [C]; None without a channel axis.
        histogram: over what was seen and what is covered, zero included.
    """

    seen: Range
    common: Range
    clipped: float
    db: float
    peaks: NDArray[np.float64] | None
    histogram: Counts


@dataclass(frozen=True, slots=True)
class WeightStatistics:
    """One weight.

    Attributes:
        low: smallest value.
        high: largest value.
        channels: slices along the channel axis of its grid; 1 where one step serves all.
        spread: the largest magnitude over the median of the channels' largest magnitudes.
        db: signal over rounding noise, in dB; infinity for none.
        histogram: from `low` to `high`.
    """

    low: float
    high: float
    channels: int
    spread: float
    db: float
    histogram: Counts


class ActivationWatcher:
    """Takes the batches of one activation, one at a time; its size does not grow with them.

    The extremes and the clipped values are counted exactly, the rest on the strided subset that
    `quant.observe.Histogram` keeps.
    """

    def __init__(self, span: Range, params: QuantParams, axis: int | None = None) -> None:
        """`span` is the calibrated range, `params` the per-tensor grid made from it.

        `axis` runs over the channels, as many of them in every batch; None if no axis does.
        """
        self._low, self._high = min(span.low, 0.0), max(span.high, 0.0)
        self._params, self._axis = params, axis
        self._peaks: NDArray[Any] | None = None
        self._histogram = Histogram()
        self._total = self._outside = 0

    def update(self, batch: NDArray[Any], /) -> None:
        """Take in `batch`, any shape.

        Raises:
            ValueError: it holds NaN or infinity.
        """
        self._histogram.update(batch)
        self._total += batch.size
        if self._axis is not None and batch.size:
            others = tuple(i for i in range(batch.ndim) if i != self._axis % batch.ndim)
            peaks = np.maximum(batch.max(axis=others), -batch.min(axis=others))
            self._peaks = peaks if self._peaks is None else np.maximum(self._peaks, peaks)
        if batch.size and (batch.min() < self._low or batch.max() > self._high):
            self._outside += int(np.count_nonzero((batch < self._low) | (batch > self._high)))

    def result(self) -> ActivationStatistics:
        """Raises ValueError when nothing was seen."""
        seen, bins = self._histogram.result(), self._histogram
        filled = np.flatnonzero(bins.counts)
        x, weight = bins.centers[filled], bins.counts[filled].astype(np.float64)
        # The zeros of a ReLU are zeros, not the middle of the bin that they begin.
        x = np.where(np.abs(x) <= bins.reach / len(bins.counts), 0.0, x)
        mass = np.cumsum(weight) / weight.sum()
        tail = (1 - _COMMON) / 2
        ends = (int(np.searchsorted(mass, tail)), int(np.searchsorted(mass, 1 - tail)))
        low, high = (float(x[min(end, len(x) - 1)]) for end in ends)
        noise = x - fake_quantize(x, self._params)
        return ActivationStatistics(
            seen=seen,
            common=Range(max(low, seen.low), min(high, seen.high)),
            clipped=self._outside / self._total,
            db=decibels(float(weight @ x**2), float(weight @ noise**2)),
            peaks=None if self._peaks is None else self._peaks.astype(np.float64),
            histogram=_binned(x, weight, min(seen.low, self._low), max(seen.high, self._high)),
        )


def weight_statistics(weight: NDArray[Any], params: QuantParams) -> WeightStatistics:
    """Range, spread of the channels, rounding noise and histogram of a weight of any shape.

    Raises:
        ValueError: it is empty.
    """
    flat = weight.astype(np.float64).reshape(-1)
    axis = params.axis
    others = tuple(i for i in range(weight.ndim) if i != axis)
    peaks = np.abs(weight).max(axis=others if axis is not None else None)
    noise = flat - fake_quantize(weight, params).reshape(-1)
    low, high = float(flat.min()), float(flat.max())
    return WeightStatistics(
        low=low,
        high=high,
        channels=int(np.size(peaks)),
        spread=spread(peaks),
        db=decibels(float(flat @ flat), float(noise @ noise)),
        histogram=_binned(flat, None, low, high),
    )


def spread(peaks: NDArray[Any]) -> float:
    """The largest of `peaks` (none negative) over their median: 1 for even channels."""
    middle, top = float(np.median(peaks)), float(np.max(peaks))
    if middle > 0:
        return top / middle
    return math.inf if top > 0 else 1.0


def _binned(
    x: NDArray[np.float64], weight: NDArray[np.float64] | None, low: float, high: float
) -> Counts:
    if not high > low:
        high = low + max(abs(low), 1.0) * 1e-6
    inside = np.clip(x, low, high)  # the middle of a fine bin may lie outside
    counts, _ = np.histogram(inside, BINS, (low, high), weights=weight)
    return Counts(low, high, tuple(int(count) for count in counts))
