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
    signal, noise = dict.fromkeys(values, 0.0), dict.fromkeys(values, 0.0)
    for feeds in samples:
        want, got = plain.run(feeds), rounded.run(feeds)
        for name in values:
            x = np.asarray(want[name], np.float64)
            signal[name] += float((x**2).sum())
            noise[name] += float(((x - got[name]) ** 2).sum())
        progress()
    return {name: _db(signal[name], noise[name]) for name in values}


def _db(signal: float, noise: float) -> float:
    if noise == 0:
        return math.inf
    return 10 * math.log10(signal / noise) if signal > 0 else -math.inf
