"""How far each value of a lowered graph is from the float graph's, over a few samples."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgebm.exec.collect import FloatRunner
from edgebm.ir.model import Model

Feeds = Mapping[str, NDArray[Any]]


class Sqnr:
    """Signal-to-quantization-noise ratio of named arrays, summed over samples."""

    def __init__(self, names: Sequence[str]) -> None:
        self._signal, self._noise = dict.fromkeys(names, 0.0), dict.fromkeys(names, 0.0)

    def add(self, want: Mapping[str, NDArray[Any]], got: Mapping[str, NDArray[Any]]) -> None:
        """Take in one sample: arrays of equal shapes by name."""
        for name in self._signal:
            x = np.asarray(want[name], np.float64)
            self._signal[name] += float((x**2).sum())
            self._noise[name] += float(((x - got[name]) ** 2).sum())

    @property
    def db(self) -> dict[str, float]:
        """10 log10(sum x^2 / sum (x - y)^2) by name; infinity where all are equal."""
        return {name: decibels(self._signal[name], noise) for name, noise in self._noise.items()}


def layer_sqnr_db(
    original: Model,
    lowered: Model,
    values: Sequence[str],
    samples: Iterable[Feeds],
    progress: Callable[[], None],
) -> dict[str, float]:
    """Signal-to-quantization-noise ratio of each value in `values`, in dB.

    The lowered graph is simulated in float with its rounding, without fusion, so that the
    error of every layer can be seen, the ones before it included.

    Args:
        original: the float graph.
        lowered: the same graph with Q/DQ nodes; value names are kept.
        values: names that exist in both graphs.
        samples: a few; one is held in memory at a time.
        progress: called after each sample.

    Returns:
        For each name 10 log10(sum x^2 / sum (x - y)^2) over all samples; infinity for equal.
    """
    plain, rounded = FloatRunner(original, values), FloatRunner(lowered, values, plain=True)
    found = Sqnr(values)
    for feeds in samples:
        found.add(plain.run(feeds), rounded.run(feeds))
        progress()
    return found.db


def decibels(signal: float, noise: float) -> float:
    """The ratio of two powers in dB; infinity without noise."""
    if noise == 0:
        return math.inf
    return 10 * math.log10(signal / noise) if signal > 0 else -math.inf
