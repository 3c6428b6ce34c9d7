"""Time through nodes that pick, cut, join and pad: the last step is the only one of a stream."""

from __future__ import annotations

import numpy as np
import onnx_ir as ir

from edgebm.ir.edit import Array, const, input_at
from edgebm.ir.time_place import LAST, MixesSteps, Place, Walk, Where, aligned, first, shape_of


def gather_place(node: ir.Node, walk: Walk) -> Where:
    data, index = node.inputs[0], node.inputs[1]
    axis = node.attributes.get_int("axis", 0) % len(shape_of(data))
    extra = len(shape_of(index)) - 1
    if isinstance(walk.at(index), Place):
        place = first(node, walk, 1)
        return Place(axis + place.axis, place.outer, place.inner)
    place = first(node, walk)
    if place.axis != axis:
        return Place(place.axis + (extra if place.axis > axis else 0), place.outer, place.inner)
    wanted = const(index)
    if wanted is None or wanted.size != 1 or int(wanted.reshape(-1)[0]) not in (
        -1, walk.steps - 1,
    ):  # fmt: skip
        raise MixesSteps("takes some of the steps; of a stream only the last one is there")
    walk.edit(node, 1, lambda index: np.full_like(index, -1))
    return LAST


def slice_place(node: ir.Node, walk: Walk) -> Where:
    place = first(node, walk)
    rank = len(shape_of(node.inputs[0]))
    starts, ends, axes, strides = (const(input_at(node, k)) for k in range(1, 5))
    if starts is None or ends is None:
        raise MixesSteps("cuts at computed places")
    listed = range(len(starts)) if axes is None else [int(a) % rank for a in axes]
    if place.axis not in listed:
        return place
    k = list(listed).index(place.axis)
    size = shape_of(node.inputs[0])[place.axis]
    start, end, stride = slice(
        int(starts[k]), int(ends[k]), 1 if strides is None else int(strides[k])
    ).indices(size)
    if (start, end, stride) == (0, size, 1):
        return place
    if (start, end, stride) == (size - 1, size, 1) and place.outer == place.inner == 1:
        walk.edit(node, 1, lambda starts: _set(starts, k, -1))
        walk.edit(node, 2, lambda ends: _set(ends, k, np.iinfo(ends.dtype).max))
        return LAST
    raise MixesSteps(f"takes steps {start} to {end} of {size}; a stream has only the last one")


def _set(array: Array, index: int, value: int) -> Array:
    changed = np.array(array)
    changed[index] = value
    return changed


def concat_place(node: ir.Node, walk: Walk) -> Place:
    rank = len(shape_of(node.outputs[0]))
    return aligned(node, walk, but=node.attributes.get_int("axis", 0) % rank)


def split_place(node: ir.Node, walk: Walk) -> Place:
    place = first(node, walk)
    if node.attributes.get_int("axis", 0) % len(shape_of(node.inputs[0])) == place.axis:
        raise MixesSteps("splits the steps; a stream has one at a time")
    return place


def pad_place(node: ir.Node, walk: Walk) -> Place:
    place = first(node, walk)
    pads, rank = const(node.inputs[1]), len(shape_of(node.inputs[0]))
    if pads is None or len(pads) != 2 * rank or pads[place.axis] or pads[place.axis + rank]:
        raise MixesSteps("adds steps before or behind the others")
    return place
