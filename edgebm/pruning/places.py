"""Where the labels of a trace lie that some layer makes and nothing freezes."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from edgebm.ir.edit import const, name
from edgebm.pruning.group import Index, Place
from edgebm.pruning.trace import Axis, Trace

Key = tuple[tuple[int, int], ...]
"""Number of an axis and how many positions there, for all axes that a unit lies on."""


@dataclass(frozen=True, slots=True)
class Places:
    """One row for each position on each axis, sorted by root: rows of a unit lie together."""

    axes: list[Axis]
    root: Index
    axis: Index
    position: Index

    def units(self) -> Iterator[tuple[int, Key]]:
        """First row and key of every unit."""
        starts = np.flatnonzero(np.diff(self.root, prepend=-1))
        stops = np.append(starts, len(self.root))[1:]
        for start, stop in zip(starts.tolist(), stops.tolist(), strict=True):
            which, counts = np.unique(self.axis[start:stop], return_counts=True)
            yield start, tuple(zip(which.tolist(), counts.tolist(), strict=True))

    def of(self, key: Key, starts: Index) -> list[tuple[Axis, Place]]:
        """The places of units of one key, in the order of their first rows [units]."""
        found, offset = [], 0
        for number, count in key:
            axis = self.axes[number]
            rows = starts[:, None] + offset + np.arange(count)
            found.append((axis, Place(name(axis[0]), axis[1], self.position[rows])))
            offset += count
        return found


def places(trace: Trace, shown: set[Axis]) -> Places:
    """Places on constants, and on the axes of computed values in `shown`."""
    able = np.zeros(len(trace.labels), np.bool_)
    for _, axis in trace.made:
        able[trace.roots(axis)] = True
    candidates = np.flatnonzero(able)
    able[candidates] = ~trace.labels.is_frozen(candidates)
    axes: list[Axis] = []
    root, number, position = [], [], []
    for axis in list(trace.axes):
        if const(axis[0]) is None and axis not in shown:
            continue
        own = trace.roots(axis)
        wanted = np.flatnonzero(able[own])
        if len(wanted):
            root.append(own[wanted])
            number.append(np.full(len(wanted), len(axes)))
            position.append(wanted)
            axes.append(axis)
    nothing = np.empty(0, np.int64)
    rows = [np.concatenate([nothing, *parts]) for parts in (root, number, position)]
    order = np.lexsort((rows[2], rows[1], rows[0]))
    return Places(axes, *(column[order] for column in rows))
