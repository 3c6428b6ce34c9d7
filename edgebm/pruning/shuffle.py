"""Reshape, Transpose, Reshape that only change the order of the positions on one axis."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import onnx_ir as ir

from edgebm.ir.edit import sole_user
from edgebm.ir.model import Model
from edgebm.pruning.group import Index
from edgebm.pruning.refine import Size, refine, sizes


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
    source = middle.inputs[0]
    first = None if source is None else source.producer()
    last = sole_user(middle.outputs[0])
    if source is None or first is None or last is None or sole_user(source) is not middle:
        return None
    given, perm = first.inputs[0], middle.attributes.get_ints("perm")
    if {first.op_type, last.op_type} != {"Reshape"} or given is None or perm is None:
        return None
    found = _order([sizes(v) for v in (given, source, last.outputs[0])], [int(p) for p in perm])
    return None if found is None else Shuffle(first, middle, last, *found)


def _order(shapes: list[list[Size] | None], perm: list[int]) -> tuple[int, Index] | None:
    """The axis that is shuffled and where each of its positions comes from.

    `shapes` are those before the first Reshape, behind it, and behind the last.
    """
    before, split, after = shapes
    if before is None or split is None or before != after:
        return None
    parts = [part for part in refine(before, split) if len(part.after) > 1]
    if len(parts) != 1 or len(parts[0].before) != 1:
        return None
    axes, axis = parts[0].after, parts[0].before[0]
    counts = [size for a in axes if isinstance(size := split[a], int)]
    within = [perm[a] for a in axes]
    elsewhere = any(perm[a] != a for a in range(len(perm)) if a not in axes)
    if sorted(within) != list(axes) or elsewhere or len(counts) != len(axes):
        return None
    moved = np.arange(math.prod(counts)).reshape(counts)
    return axis, moved.transpose([a - axes[0] for a in within]).reshape(-1)
