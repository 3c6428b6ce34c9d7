"""Observers: what calibration keeps of an activation. Streaming, of constant size.

Each sees batches one at a time and never holds on to one. `result()` is the range the
integers shall cover.
"""

from __future__ import annotations

from typing import Any, Literal, Protocol

import numpy as np
from numpy.typing import NDArray

from edgebm.quant.params import Range

ObserverKind = Literal["minmax", "percentile", "mse", "entropy"]
_BINS = 8192
_SAMPLED = 1 << 15  # elements of one batch that go into a histogram; extremes see all


class Observer(Protocol):
    """Sees every batch of one tensor and then names its range."""

    def update(self, batch: NDArray[Any], /) -> None: ...

    def result(self) -> Range: ...


class MinMax:
    """The smallest and largest value seen."""

    def __init__(self) -> None:
        self.low, self.high = np.inf, -np.inf

    def update(self, batch: NDArray[Any], /) -> None:
        """Take in `batch`, any shape.

        Raises:
            ValueError: it holds NaN or infinity.
        """
        if batch.size == 0:
            return
        low, high = float(batch.min()), float(batch.max())
        if not (np.isfinite(low) and np.isfinite(high)):
            raise ValueError("the activation has NaN or infinite values")
        self.low, self.high = min(self.low, low), max(self.high, high)

    def result(self) -> Range:
        """Raises ValueError when nothing was seen."""
        if self.low > self.high:
            raise ValueError("no value was seen")
        return Range(self.low, self.high)


class Histogram(MinMax):
    """Counts over [-reach, reach] in 8,192 equal bins; `reach` doubles when a value exceeds it.

    Doubling merges neighbouring bins exactly, so the memory and the result do not depend on
    the number or order of batches beyond the grid. Of a large batch a strided subset is
    counted; the extremes are exact.
    """

    def __init__(self) -> None:
        super().__init__()
        self.reach = 0.0
        self.counts = np.zeros(_BINS, np.int64)
        self._phase = 0

    def update(self, batch: NDArray[Any], /) -> None:
        super().update(batch)
        if batch.size == 0:
            return
        self._grow(max(abs(self.low), abs(self.high)))
        flat = batch.reshape(-1)
        if flat.size > _SAMPLED:
            stride = -(-flat.size // _SAMPLED) | 1  # odd, so that it does not beat with channels
            self._phase = (self._phase + 1) % stride
            flat = flat[self._phase :: stride]
        index = (flat * np.float32(_BINS / 2 / self.reach) + np.float32(_BINS / 2)).astype(
            np.int32
        )
        np.clip(index, 0, _BINS - 1, out=index)
        self.counts += np.bincount(index, minlength=_BINS)

    def take(self, seen: Histogram) -> None:
        """Have seen what `seen` has, and nothing else."""
        self.low, self.high, self.reach = seen.low, seen.high, seen.reach
        self.counts = seen.counts.copy()

    @property
    def centers(self) -> NDArray[np.float64]:
        """Middle of each bin, shape [8192]."""
        width = 2 * self.reach / _BINS
        return np.asarray((np.arange(_BINS) + 0.5) * width - self.reach, np.float64)

    def _grow(self, peak: float) -> None:
        if self.reach == 0.0:
            self.reach = float(2.0 ** np.ceil(np.log2(max(peak, 1e-30))))
        while peak > self.reach:
            half = self.counts.reshape(-1, 2).sum(axis=1)
            self.counts = np.zeros(_BINS, np.int64)
            self.counts[_BINS // 4 : 3 * _BINS // 4] = half
            self.reach *= 2


class Extremes(Histogram):
    """Remembers beside its histogram in which batches the values reached farthest."""

    def __init__(self, count: int) -> None:
        super().__init__()
        self._count, self._seen = count, 0
        self._ends: list[tuple[float, float, int]] = []  # low, high and index of a batch

    def update(self, batch: NDArray[Any], /) -> None:
        super().update(batch)
        if batch.size:
            self._ends.append((float(batch.min()), float(batch.max()), self._seen))
        self._seen += 1
        lowest = sorted(self._ends)[: self._count]
        highest = sorted(self._ends, key=lambda end: (-end[1], end[2]))[: self._count]
        self._ends = list(dict.fromkeys([*lowest, *highest]))

    @property
    def farthest(self) -> list[int]:
        """Indices of the batches that came nearest to an end of the range, the nearest first."""

        def reach(end: tuple[float, float, int]) -> float:
            low = end[0] / self.low if self.low < 0 else 0.0
            return max(low, end[1] / self.high if self.high > 0 else 0.0)

        ranked = sorted(self._ends, key=lambda end: (-reach(end), end[2]))
        return [end[2] for end in ranked[: self._count]]


class Percentile(Histogram):
    """The range that leaves out `100 - percentile` percent of the values, half at each end.

    An end that the tensor does not reach below (after a ReLU) keeps its extreme.
    """

    def __init__(self, percentile: float = 99.99) -> None:
        super().__init__()
        self.percentile = percentile

    def result(self) -> Range:
        span = super().result()
        mass = np.cumsum(self.counts) / max(int(self.counts.sum()), 1)
        tail = (1 - self.percentile / 100) / 2
        low = float(self.centers[int(np.searchsorted(mass, tail))])
        high = float(self.centers[min(int(np.searchsorted(mass, 1 - tail)), _BINS - 1)])
        return Range(max(span.low, min(low, 0.0)), min(span.high, max(high, 0.0)))


class Mse(Histogram):
    """The range whose 8-bit grid has the smallest mean squared error on the histogram.

    Both ends are shrunk separately over a grid of fractions: first together, then each alone.

    Source:
        Sung et al. 2015, arXiv:1511.06488, section 3; Nagel et al. 2021, arXiv:2106.08295,
        section 3.1 (equation 18).
    """

    def __init__(self, bits: int = 8) -> None:
        super().__init__()
        self.bits = bits

    def result(self) -> Range:
        span = super().result()
        seen = self.counts > 0
        x, weight = self.centers[seen], self.counts[seen].astype(np.float64)
        fractions = np.linspace(0.3, 1.0, 71)
        both = [Range(span.low * f, span.high * f) for f in fractions]
        best = self._best(x, weight, both)
        if span.low < 0 < span.high:
            best = self._best(
                x, weight, [best, *(Range(span.low * f, best.high) for f in fractions)]
            )
            best = self._best(
                x, weight, [best, *(Range(best.low, span.high * f) for f in fractions)]
            )
        return best

    def _best(
        self, x: NDArray[np.float64], weight: NDArray[np.float64], spans: list[Range]
    ) -> Range:
        errors = [_squared_error(x, weight, span, self.bits) for span in spans]
        return spans[len(errors) - 1 - int(np.argmin(errors[::-1]))]


class Entropy(Histogram):
    """The range whose 8-bit histogram keeps the most information (least KL divergence).

    Both ends shrink together; what is cut off is counted into the last bins kept.

    Source:
        Migacz 2017, "8-bit inference with TensorRT", GTC 2017, slides 15 to 30.
    """

    def result(self) -> Range:
        span = super().result()
        counts = self.counts.astype(np.float64)
        seen = np.flatnonzero(self.counts)
        first, last = int(seen[0]), int(seen[-1]) + 1
        best, least = span, np.inf
        for fraction in np.linspace(0.2, 1.0, 81):
            start = int(_BINS / 2 - (_BINS / 2 - first) * fraction) if first < _BINS / 2 else first
            stop = int(_BINS / 2 + (last - _BINS / 2) * fraction) if last > _BINS / 2 else last
            if stop - start < 256:
                continue
            divergence = _divergence(counts, start, stop)
            if divergence < least:
                low = span.low if first >= _BINS / 2 else span.low * fraction
                high = span.high if last <= _BINS / 2 else span.high * fraction
                best, least = Range(low, high), divergence
        return best


def observer(kind: ObserverKind) -> Observer:
    """A fresh observer by its recipe name."""
    return {"minmax": MinMax, "percentile": Percentile, "mse": Mse, "entropy": Entropy}[kind]()


def every_range(seen: Histogram, bits: int = 8) -> list[Range]:
    """What each kind of observer would choose: minmax, mse, percentile 99.99 and 99.9, entropy.

    Args:
        seen: what they all have seen.
        bits: of the grid that `mse` has in mind.
    """
    kinds = [Mse(bits), Percentile(99.99), Percentile(99.9), Entropy()]
    for kind in kinds:
        kind.take(seen)
    return [MinMax.result(seen), *(kind.result() for kind in kinds)]


def _squared_error(
    x: NDArray[np.float64], weight: NDArray[np.float64], span: Range, bits: int
) -> float:
    low, high = min(span.low, 0.0), max(span.high, 0.0)
    scale = (high - low) / (2**bits - 1)
    if scale <= 0:
        return float(weight @ x**2)
    zero = np.rint(-low / scale)
    q = np.clip(np.rint(x / scale) + zero, 0, 2**bits - 1)
    return float(weight @ (x - (q - zero) * scale) ** 2)


def _divergence(counts: NDArray[np.float64], start: int, stop: int) -> float:
    """KL(P || Q): P is the clipped histogram, Q the same after rounding to 256 levels."""
    p = counts[start:stop].copy()
    nonzero = p > 0
    p[0] += counts[:start].sum()
    p[-1] += counts[stop:].sum()
    level = np.arange(len(p)) * 256 // len(p)
    inside = counts[start:stop]
    mass = np.bincount(level, weights=inside, minlength=256)
    filled = np.bincount(level, weights=nonzero, minlength=256)
    q = np.where(nonzero, (mass / np.maximum(filled, 1))[level], 0.0)
    p, q = p / p.sum(), q / max(q.sum(), 1.0)
    both = (p > 0) & (q > 0)
    missing = float(p[(p > 0) & (q == 0)].sum())  # clipped mass that Q cannot express
    return float((p[both] * np.log(p[both] / q[both])).sum()) + 10.0 * missing
