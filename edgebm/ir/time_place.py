"""Where time lies in a value, and what happens to it where inputs are aligned with each other."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np
import onnx_ir as ir

from edgebm.ir.edit import Array, const
from edgebm.ir.shapes import static_shape

Edit = Callable[[Array], Array]


@dataclass(frozen=True, slots=True)
class Place:
    """Time lies on `axis`, as the middle one of `outer` x T x `inner` numbers."""

    axis: int
    outer: int = 1
    inner: int = 1


class Last:
    """The value is made of the state after the last step."""


LAST = Last()
Where = Place | Last | None


class MixesSteps(Exception):
    """Why the node cannot be computed step by step."""


@dataclass(slots=True)
class Walk:
    """What rules see: where time is so far, and T. `edits` are for constants that hold T."""

    steps: int
    places: dict[ir.Value, Where] = field(default_factory=dict)
    edits: dict[tuple[str, int], list[Edit]] = field(default_factory=dict)

    def at(self, value: ir.Value | None) -> Where:
        return None if value is None else self.places.get(value)

    def edit(self, node: ir.Node, index: int, change: Edit) -> None:
        self.edits.setdefault((node.name or "", index), []).append(change)


def shape_of(value: ir.Value | None) -> tuple[int, ...]:
    """The shape, which is known: all free axes were given sizes."""
    shape = static_shape(value)
    if shape is None:
        label = "?" if value is None else value.name
        raise MixesSteps(f"the shape of '{label}' is not known, so time cannot be followed")
    return shape


def first(node: ir.Node, walk: Walk, index: int = 0) -> Place:
    """The place of an input, which must be the only one with time."""
    place = walk.at(node.inputs[index])
    others = [v for k, v in enumerate(node.inputs) if k != index]
    if not isinstance(place, Place) or any(isinstance(walk.at(v), Place) for v in others):
        raise MixesSteps(f"{node.op_type} takes time in an input where it is not followed")
    return place


def aligned(node: ir.Node, walk: Walk, *, but: int | None = None) -> Place:
    """Inputs are aligned at their last axes; `but` is an axis on which they may differ."""
    rank = len(shape_of(node.outputs[0]))
    placed = [
        (place, rank - len(shape_of(value)))
        for value in node.inputs
        if value is not None and isinstance(place := walk.at(value), Place)
    ]
    found = {Place(p.axis + shift, p.outer, p.inner) for p, shift in placed}
    if len(found) > 1:
        raise MixesSteps("brings steps of different times together")
    (place,) = found
    if but is not None and place.axis == but:
        raise MixesSteps("puts steps one behind another")
    for index, value in enumerate(node.inputs):
        if value is not None and not isinstance(walk.at(value), Place):
            _same_for_all(node, index, place, walk)
    return place


def _same_for_all(reader: ir.Node, index: int, place: Place, walk: Walk) -> None:
    """An operand without time must be the same at every step."""
    value, rank = reader.inputs[index], len(shape_of(reader.outputs[0]))
    assert value is not None
    shape = shape_of(value)
    axis = place.axis - rank + len(shape)
    if axis < 0 or shape[axis] == 1:
        return
    node = value.producer()
    if node is not None and node.op_type == "Expand":
        inner = shape_of(node.inputs[0])
        if len(inner) < len(shape) - axis or inner[axis - len(shape)] == 1:
            walk.edit(node, 1, lambda dims: with_one_step(dims, axis - len(shape), walk.steps))
            return
    array = const(value)
    if array is not None and (array == np.take(array, [0], axis)).all():
        walk.edit(reader, index, lambda numbers: np.take(numbers, [0], axis))
        return
    raise MixesSteps(
        f"'{value.name}' has other numbers for each of the {shape[axis]} steps (such as an "
        "encoding of positions)"
    )


def with_one_step(dims: Array, axis: int, steps: int) -> Array:
    """The sizes with T on `axis` divided out; -1 and 0, which mean no number, stay."""
    changed = np.array(dims)
    if changed[axis] > 0:
        changed[axis] //= steps
    return changed
