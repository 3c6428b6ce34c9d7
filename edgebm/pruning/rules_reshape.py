"""Rule of Reshape and its kin: which factor of a split or joined axis the units are."""

from __future__ import annotations

import math
from collections.abc import Iterator

import numpy as np
import onnx_ir as ir

from edgebm.ir.dims import Free
from edgebm.ir.edit import const, input_at
from edgebm.pruning.group import Index
from edgebm.pruning.refine import Factor, Part, refine, solved
from edgebm.pruning.rules_axes import REDUCTIONS, Rule
from edgebm.pruning.trace import Trace

_WHOLE = "they are split or joined and go as a whole"


def _reshape(node: ir.Node, trace: Trace) -> None:
    """[C] to [h, d] and back: units are whole heads, or whatever factor nothing picks from."""
    value, out = node.inputs[0], node.outputs[0]
    assert value is not None
    shuffle = trace.shuffles.get(node)
    if shuffle is not None:
        if node is shuffle.last:
            _shuffled(node, trace)
        return
    before, after = trace.sizes(value), trace.sizes(out)
    if before is None or after is None:
        trace.freeze_node(node, "the number of its axes is not known")
        return
    trace.learn(out, solved(before, after))
    for part in refine(before, after):
        axes = [*((value, a) for a in part.before), *((out, a) for a in part.after)]
        if len(part.factors) == 1:
            trace.join(node, axes[0], axes[1])
            continue
        unit = _unit(part, value, out, trace)
        if unit is None:
            trace.freeze(node, axes, _WHOLE)
        else:
            _tie_unit(node, trace, part, unit)


def _shuffled(node: ir.Node, trace: Trace) -> None:
    shuffle = trace.shuffles[node]
    value, out = shuffle.first.inputs[0], node.outputs[0]
    assert value is not None
    for axis in range(trace.rank(value)):
        if axis != shuffle.axis:
            trace.join(node, (value, axis), (out, axis))
    before = trace.of(value, shuffle.axis)
    after = trace.of(out, shuffle.axis)
    trace.tie(node, None if before is None else before[shuffle.order], after)


def _unit(part: Part, value: ir.Value, out: ir.Value, trace: Trace) -> Factor | None:
    """The factor whose positions are units: the first that can be cut, on both sides."""
    open_ones = [
        factor
        for factor in part.factors
        if isinstance(factor.size, int)
        and all(_static(part, factor, side) is not None for side in ("before", "after"))
        and not _is_frozen(trace, part, factor, value)
    ]
    aligned = [f for f in open_ones if _is_aligned(trace, part, f, value)]
    for choice in (aligned, open_ones):
        wanted = [
            factor
            for factor in choice
            if not (_is_alone(part, factor) and _is_picked(out, factor.after, trace))
        ]
        if wanted:
            return wanted[0]
    return None


def _own(part: Part, factor: Factor, side: str) -> list[Factor]:
    """All factors of the axis that `factor` is on."""
    axis = getattr(factor, side)
    return [f for f in part.factors if getattr(f, side) == axis]


def _static(part: Part, factor: Factor, side: str) -> tuple[int, int, str] | None:
    """Positions outside and inside of `factor` on its axis, and where a free size lies."""
    own = _own(part, factor, side)
    place = next(i for i, f in enumerate(own) if f is factor)
    free = [i for i, f in enumerate(own) if isinstance(f.size, Free)]
    mode = "outer"
    if free:
        count = len(free)
        if free == list(range(count)):
            mode = "outer"
        elif free == list(range(len(own) - count, len(own))):
            mode = "inner"
        else:
            return None
    numbers = [f.size.factor if isinstance(f.size, Free) else f.size for f in own]
    return math.prod(numbers[:place]), math.prod(numbers[place + 1 :]), mode


def _cube(trace: Trace, part: Part, factor: Factor, side: str, value: ir.Value) -> Index | None:
    """Labels of the axis that `factor` is on, as [outside, factor, inside]."""
    labels, found = trace.of(value, getattr(factor, side)), _static(part, factor, side)
    if labels is None or found is None or not isinstance(factor.size, int):
        return None
    outside, inside, _ = found
    if len(labels) != outside * factor.size * inside:
        return None
    return labels.reshape(outside, factor.size, inside)


def _is_frozen(trace: Trace, part: Part, factor: Factor, value: ir.Value) -> bool:
    cube = _cube(trace, part, factor, "before", value)
    return cube is None or bool(trace.labels.is_frozen(cube).all())


def _is_aligned(trace: Trace, part: Part, factor: Factor, value: ir.Value) -> bool:
    """Whether the labels differ along this factor alone, or along every one."""
    cube = _cube(trace, part, factor, "before", value)
    if cube is None:
        return False
    roots = trace.labels.roots(cube)
    return bool((roots == roots[:1, :, :1]).all()) or len(np.unique(roots)) == roots.size


def _is_alone(part: Part, factor: Factor) -> bool:
    return len(_own(part, factor, "after")) == 1


def _tie_unit(node: ir.Node, trace: Trace, part: Part, unit: Factor) -> None:
    value, out = node.inputs[0], node.outputs[0]
    assert value is not None
    taken = _cube(trace, part, unit, "before", value)
    made = _cube(trace, part, unit, "after", out)
    sides = ((value, "before", unit.before), (out, "after", unit.after))
    if taken is None or made is None:
        trace.freeze(node, [(v, axis) for v, _, axis in sides], _WHOLE)
        return
    for held, side, axis in sides:
        found = _static(part, unit, side)
        if trace.is_free(held, axis) and found is not None:
            mode = trace.mode.setdefault((held, axis), found[2])
            if mode != found[2]:
                trace.freeze(node, [(held, axis)], _WHOLE)
    trace.labels.tie(taken, taken[:1, :, :1])
    trace.labels.tie(made, taken[:1, :, :1])
    others = [*((value, a) for a in part.before if a != unit.before)]
    others += [(out, a) for a in part.after if a != unit.after]
    trace.freeze(node, others, _WHOLE)


def _is_picked(value: ir.Value, axis: int, trace: Trace) -> bool:
    """Whether what reads `value` picks single positions of `axis`, or adds over it."""
    return any(
        _picks(node, index, later, trace) for node, index, later in _readers(value, axis, trace)
    )


def _readers(value: ir.Value, axis: int, trace: Trace) -> Iterator[tuple[ir.Node, int, int]]:
    """Nodes behind what only moves the axis, with the number of the input and its place there."""
    for use in value.uses():
        node = use.node
        behind = _moved(node, axis, trace) if use.idx == 0 else None
        if behind is None:
            yield node, use.idx, axis
        else:
            yield from _readers(node.outputs[0], behind, trace)


def _moved(node: ir.Node, axis: int, trace: Trace) -> int | None:
    """The place of an input's axis in the output of a node that leaves it whole; else None."""
    if node.op_type == "Transpose":
        order = node.attributes.get_ints("perm")
        return None if order is None else list(order).index(axis)
    value = node.inputs[0]
    if node.op_type not in RULES or value is None:
        return None
    before, after = trace.sizes(value), trace.sizes(node.outputs[0])
    if before is None or after is None:
        return None
    whole = [p for p in refine(before, after) if p.before == (axis,) and len(p.factors) == 1]
    return whole[0].after[0] if whole else None


def _picks(node: ir.Node, index: int, axis: int, trace: Trace) -> bool:
    value = node.inputs[index]
    assert value is not None
    if node.op_type == "InstanceNormalization":
        return _narrow_norm(value, axis, trace)
    return axis in _looked_along(node, index, trace.rank(value))


def _looked_along(node: ir.Node, index: int, rank: int) -> set[int]:
    """Axes of an input of which `node` picks positions, or over which it adds up."""
    if node.op_type == "MatMul":
        return {rank - 1 if index == 0 else max(rank - 2, 0)}
    if index:
        return set()
    if node.op_type in {"Gather", "Split", "Softmax", "LogSoftmax"}:
        default = -1 if "Softmax" in node.op_type else 0
        return {node.attributes.get_int("axis", default) % rank}
    if node.op_type == "LayerNormalization":
        return set(range(node.attributes.get_int("axis", -1) % rank, rank))
    axes = const(input_at(node, {"Slice": 3}.get(node.op_type, 1)))
    if node.op_type not in {*REDUCTIONS, "Slice"}:
        return set()
    return set(range(rank)) if axes is None else {int(a) % rank for a in axes.reshape(-1)}


def _narrow_norm(value: ir.Value, axis: int, trace: Trace) -> bool:
    """GroupNorm as [N, groups, all else]: few groups stay, many can go one by one."""
    shape = trace.sizes(value)
    if shape is None or axis != 1 or not isinstance(shape[1], int):
        return False
    return shape[1] * shape[1] < _channels(value)


def _channels(value: ir.Value) -> int:
    """Channels of what a Reshape made [N, groups, all else] of."""
    producer = value.producer()
    source = None if producer is None else producer.inputs[0]
    size = None if source is None or source.shape is None else source.shape[1]
    return size if isinstance(size, int) else 0


RULES: dict[str, Rule] = dict.fromkeys(("Reshape", "Flatten", "Squeeze", "Unsqueeze"), _reshape)
