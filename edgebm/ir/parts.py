"""Where a value comes from: which channels, and at which place, of which other value."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

import onnx_ir as ir

from edgebm.ir.edit import const, input_at


@dataclass(frozen=True, slots=True)
class Part:
    """Channels `lo` to `hi` (the last axis) of `value` at some places of its other axes.

    `at` lists (axis, index) pairs, applied one after the other: each takes its axis away.
    """

    value: ir.Value
    lo: int
    hi: int
    at: tuple[tuple[int, int], ...] = ()

    @property
    def width(self) -> int:
        return self.hi - self.lo

    @property
    def is_whole(self) -> bool:
        return not self.at and self.lo == 0 and self.hi == channels(self.value)


def channels(value: ir.Value | None) -> int | None:
    """The size of the last axis, if it is known."""
    if value is None or value.shape is None or not len(value.shape):
        return None
    last = value.shape[-1]
    return last if isinstance(last, int) else None


def whole(value: ir.Value) -> Part | None:
    """All channels of a value, or None where their number is not known."""
    width = channels(value)
    return None if width is None else Part(value, 0, width)


def step_back(part: Part) -> Part | None:
    """The same numbers one node earlier, behind a Slice, Split, Gather, Squeeze or Concat."""
    node = part.value.producer()
    rule = _RULES.get(node.op_type) if node is not None else None
    if node is None or rule is None or node.inputs[0] is None or part.value.shape is None:
        return None
    return rule(node, node.inputs[0], part)


def _axis(node: ir.Node, value: ir.Value, key: str = "axis") -> int | None:
    if value.shape is None:
        return None
    return node.attributes.get_int(key, 0) % len(value.shape)


def _slice(node: ir.Node, source: ir.Value, part: Part) -> Part | None:
    given = [const(input_at(node, k)) for k in range(1, 5)]
    starts, ends, axes, steps = given
    if source.shape is None or starts is None or ends is None or axes is None or axes.size != 1:
        return None
    if steps is not None and steps.reshape(-1)[0] != 1:
        return None
    axis = int(axes.reshape(-1)[0]) % len(source.shape)
    size, start = source.shape[axis], int(starts.reshape(-1)[0])
    if start < 0:
        if not isinstance(size, int):
            return None
        start = max(0, start + size)
    return _offset(source, part, axis, start)


def _split(node: ir.Node, source: ir.Value, part: Part) -> Part | None:
    axis = _axis(node, source)
    if axis is None:
        return None
    start = 0
    for out in node.outputs:
        if out is part.value:
            return _offset(source, part, axis, start)
        size = out.shape[axis] if out.shape is not None else None
        if not isinstance(size, int):
            return None
        start += size
    return None


def _offset(source: ir.Value, part: Part, axis: int, start: int) -> Part | None:
    """`part` of a stretch of `source` that begins at `start` of `axis`."""
    assert source.shape is not None
    if axis == len(source.shape) - 1:
        return replace(part, value=source, lo=part.lo + start, hi=part.hi + start)
    if part.at and part.at[0][0] == axis:
        return replace(part, value=source, at=((axis, part.at[0][1] + start), *part.at[1:]))
    return None


def _gather(node: ir.Node, source: ir.Value, part: Part) -> Part | None:
    index, axis = const(input_at(node, 1)), _axis(node, source)
    if index is None or index.size != 1 or axis is None or source.shape is None:
        return None
    place, size = int(index.reshape(-1)[0]), source.shape[axis]
    if place < 0:
        if not isinstance(size, int):
            return None
        place += size
    if axis == len(source.shape) - 1:
        return None
    if index.ndim == 1:
        return _offset(source, part, axis, place)
    return replace(part, value=source, at=((axis, place), *part.at)) if index.ndim == 0 else None


def _squeeze(node: ir.Node, source: ir.Value, part: Part) -> Part | None:
    axes = const(input_at(node, 1))
    if axes is None or axes.size != 1 or source.shape is None or part.at:
        return None
    axis = int(axes.reshape(-1)[0]) % len(source.shape)
    if axis == len(source.shape) - 1:
        return None
    return replace(part, value=source, at=((axis, 0), *part.at))


def _unsqueeze(node: ir.Node, source: ir.Value, part: Part) -> Part | None:
    axes, shape = const(input_at(node, 1)), part.value.shape
    if axes is None or axes.size != 1 or shape is None or not part.at:
        return None
    axis = int(axes.reshape(-1)[0]) % len(shape)
    if part.at[0] != (axis, 0) or axis == len(shape) - 1:
        return None
    return replace(part, value=source, at=part.at[1:])


def _concat(node: ir.Node, _: ir.Value, part: Part) -> Part | None:
    """One of the values joined, where the channels are all from it."""
    pieces = joined(part)
    if pieces is None:
        return None
    inside = [(start, piece) for start, piece in pieces if start <= part.lo]
    start, piece = inside[-1]
    if part.hi > start + piece.width:
        return None
    return Part(piece.value, part.lo - start, part.hi - start, part.at)


def joined(part: Part) -> list[tuple[int, Part]] | None:
    """The values a Concat of channels joins, each with the channel it begins at; else None."""
    node, shape = part.value.producer(), part.value.shape
    if node is None or node.op_type != "Concat" or shape is None:
        return None
    if node.attributes.get_int("axis", 0) % len(shape) != len(shape) - 1:
        return None
    found, start = [], 0
    for value in node.inputs:
        piece = whole(value) if value is not None else None
        if piece is None:
            return None
        found.append((start, replace(piece, at=part.at)))
        start += piece.width
    return found


_RULES: dict[str, Callable[[ir.Node, ir.Value, Part], Part | None]] = {
    "Slice": _slice,
    "Split": _split,
    "Gather": _gather,
    "Squeeze": _squeeze,
    "Unsqueeze": _unsqueeze,
    "Concat": _concat,
}
