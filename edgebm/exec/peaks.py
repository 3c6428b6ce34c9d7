"""The largest magnitude of every float value, over samples: what FP16 can hold and what not."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgebm.exec.collect import Feeds, collect
from edgebm.ir.annotate import set_peak
from edgebm.ir.edit import const
from edgebm.ir.model import Model
from edgebm.ir.traits import is_float


def note_peaks(model: Model, samples: Iterable[Feeds], progress: Callable[[], None]) -> Model:
    """A copy of `model` whose float values know their largest magnitude over `samples`.

    A value that comes out infinite or NaN has an infinite peak.

    Args:
        model: a float graph; its decisions are kept.
        samples: feeds of the whole model.
        progress: called after each sample.

    Raises:
        DataError: there is no sample, or the model does not run on one.
        BackendFailed: ONNX Runtime does not load the model.
    """
    out = model.clone()
    values = {v.name: v for v in out.graph.graph.inputs}
    values |= {v.name: v for node in out.graph.graph for v in node.outputs}
    floats = {n: v for n, v in values.items() if n and is_float(v) and const(v) is None}
    peaks = dict.fromkeys(floats, 0.0)
    collect(out, samples, {name: partial(_raise, peaks, name) for name in floats}, progress)
    for name, value in floats.items():
        set_peak(value, peaks[name])
    return out


def _raise(peaks: dict[str, float], name: str, batch: NDArray[Any]) -> None:
    if batch.size:
        top = float(max(batch.max(), -batch.min()))
        peaks[name] = max(peaks[name], top if np.isfinite(top) else np.inf)
