"""Reshape, Transpose, Reshape that only change the order of the positions on one axis."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import onnx_ir as ir

from edgebm.ir.dims import Free
from edgebm.ir.edit import sole_user
from edgebm.ir.model import Model
from edgebm.prune.group import Index
from edgebm.prune.refine import refine, sizes


@dataclass(frozen=True, slots=True)
class Shuffle:
    """Position i of `axis` of `last`'s output is position `order[i]` of `first`'s input."""

    first: ir.Node
    middle: ir.Node
    last: ir.Node
    axis: int
    order: Index


def shuffles(model: Model) -> dict[ir.Node, Shuffle]:
    """Every channel shuffle, by each of its three nodes.

    Source:
        Zhang et al. 2018, arXiv:1707.01083, section 3.1 (channel shuffle).
    """
    found = {}
    for node in model.nodes("Transpose"):
        if (shuffle := _shuffle(node)) is not None:
            found.update(dict.fromkeys((shuffle.first, shuffle.middle, shuffle.last), shuffle))
    return found


def _shuffle(middle: ir.Node) -> Shuffle | None:
    source, perm = middle.inputs[0], middle.attributes.get_ints("perm")
    first = None if source is None else source.producer()
    last = sole_user(middle.outputs[0])
    if source is None or first is None or last is None or perm is None:
        return None
    if {first.op_type, last.op_type} != {"Reshape"} or sole_user(source) is not middle:
        return None
    given, out = first.inputs[0], last.outputs[0]
    shapes = [sizes(value) for value in (given, source, out) if value is not None]
    before, split, after = shapes if len(shapes) == 3 else (None, None, None)
    if before is None or split is None or after is None or before != after:
        return None
    parts = [part for part in refine(before, split) if len(part.after) > 1]
    if len(parts) != 1 or len(parts[0].before) != 1:
        return None
    axes, axis = parts[0].after, parts[0].before[0]
    counts = [split[a] for a in axes]
    order = [int(p) for p in perm]
    within = [order[a] for a in axes]
    if sorted(within) != list(axes) or any(isinstance(c, Free) for c in counts):
        return None
    if any(order[a] != a for a in range(len(order)) if a not in axes):
        return None
    positions = np.arange(np.prod(counts, dtype=np.int64)).reshape(counts)
    moved = positions.transpose([a - axes[0] for a in within]).reshape(-1)
    return Shuffle(first, middle, last, axis, moved)
