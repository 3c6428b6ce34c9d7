"""How far each value of a lowered graph is from the float graph's, over a few samples."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray

from edgebm.exec.collect import FloatRunner
from edgebm.exec.rounded_cells import with_rounded_cells
from edgebm.ir.model import Model

Feeds = Mapping[str, NDArray[Any]]
_F32 = ir.DataType.FLOAT


class Sqnr:
    """Signal-to-quantization-noise ratio of named arrays, summed over samples."""

    def __init__(self, names: Sequence[str]) -> None:
        self._signal, self._noise = dict.fromkeys(names, 0.0), dict.fromkeys(names, 0.0)

    def add(
        self,
        want: Mapping[str, NDArray[Any]],
        got: Mapping[str, NDArray[Any]],
        weight: float = 1.0,
    ) -> None:
        """Take in one sample: arrays of equal shapes by name. It counts as `weight` samples."""
        for name in self._signal:
            x = np.asarray(want[name], np.float64)
            self._signal[name] += weight * float((x**2).sum())
            self._noise[name] += weight * float(((x - got[name]) ** 2).sum())

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
    simulated = with_rounded_cells(lowered)
    plain, rounded = FloatRunner(original, values), FloatRunner(simulated, values, plain=True)
    found = Sqnr(values)
    for feeds in samples:
        found.add(plain.run(feeds), rounded.run(feeds))
        progress()
    return found.db


def worst_gain_db(
    original: Model,
    before: Model,
    after: Model,
    samples: Iterable[Feeds],
    progress: Callable[[], None],
) -> float:
    """How much nearer `after` is to the float graph than `before`, at each one's worst output.

    Args:
        original: the float graph.
        before: one of its lowered forms.
        after: another.
        samples: a few; one is held in memory at a time.
        progress: called after each sample.

    Returns:
        SQNR of `after` less that of `before` in dB; 0 where no output is float32.
    """
    outputs = [v.name for v in original.graph.graph.outputs if v.name and v.dtype == _F32]
    if not outputs:
        return 0.0
    plain = FloatRunner(original, outputs)
    runners = [FloatRunner(lowered, outputs, plain=True) for lowered in (before, after)]
    found = [Sqnr(outputs), Sqnr(outputs)]
    for feeds in samples:
        want = plain.run(feeds)
        for sqnr, runner in zip(found, runners, strict=True):
            sqnr.add(want, runner.run(feeds))
        progress()
    was, now = (min(sqnr.db.values()) for sqnr in found)
    return 0.0 if now == was else now - was


def decibels(signal: float, noise: float) -> float:
    """The ratio of two powers in dB; infinity without noise."""
    if noise == 0:
        return math.inf
    return 10 * math.log10(signal / noise) if signal > 0 else -math.inf
