"""How every float value is on samples: what FP16 can hold and what not."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgebm.exec.collect import Feeds, collect
from edgebm.ir.annotate import Extent, set_extent
from edgebm.ir.edit import const
from edgebm.ir.model import Model
from edgebm.ir.traits import is_float

Sums = NDArray[np.float64]
_STILL = 1e-12  # variance over mean square of a value that does not vary: what sums leave


def note_extents(model: Model, samples: Iterable[Feeds], progress: Callable[[], None]) -> Model:
    """A copy of `model` whose float values know their extent over `samples`.

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
    watchers = {name: _Watcher() for name in floats}
    collect(out, samples, {name: each.update for name, each in watchers.items()}, progress)
    for name, value in floats.items():
        set_extent(value, watchers[name].result())
    return out


class _Watcher:
    """Sums over one value, channel by channel; its size does not grow with the samples."""

    def __init__(self) -> None:
        self._peak, self._count = 0.0, 0
        self._sum = self._squares = np.zeros(0)

    def update(self, batch: NDArray[Any], /) -> None:
        if not batch.size:
            return
        top = float(max(batch.max(), -batch.min()))
        self._peak = max(self._peak, top if np.isfinite(top) else np.inf)
        if not np.isfinite(self._peak):
            return
        # Images have their channels on axis 1, most of the others on the last one.
        axis = 1 if batch.ndim > 3 else batch.ndim - 1
        others = tuple(k for k in range(batch.ndim) if k != axis)
        self._sum = _added(self._sum, batch.sum(axis=others, dtype=np.float64))
        self._squares = _added(self._squares, np.square(batch, dtype=np.float64).sum(axis=others))
        self._count += batch.size

    def result(self) -> Extent:
        if not self._count or not np.isfinite(self._peak):
            return Extent(self._peak, 0.0)
        each = self._count / self._sum.size
        square = float(self._squares.sum()) / self._count
        variance = square - float(np.square(self._sum / each).mean())
        still = variance <= _STILL * square
        return Extent(self._peak, 0.0 if still else square / variance)


def _added(kept: Sums, new: Sums) -> Sums:
    """Channel by channel; an axis whose length changes is none of channels, and counts as one."""
    if not kept.size:
        return np.atleast_1d(new)
    if kept.shape == np.shape(new):
        return np.asarray(kept + new)
    return np.atleast_1d(kept.sum() + np.sum(new))
