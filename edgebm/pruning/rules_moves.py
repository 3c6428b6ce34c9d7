"""Rules of ops that move, pick or join positions."""

from __future__ import annotations

import numpy as np
import onnx_ir as ir

from edgebm.ir.edit import const, input_at, inputs
from edgebm.pruning.group import Index
from edgebm.pruning.rules_axes import Rule, keep_axes
from edgebm.pruning.trace import Axis, Trace


def _transpose(node: ir.Node, trace: Trace) -> None:
    value, out = node.inputs[0], node.outputs[0]
    assert value is not None
    rank = trace.rank(value)
    order = node.attributes.get_ints("perm") or list(range(rank))[::-1]
    for behind, axis in enumerate(order):
        trace.join(node, (value, axis), (out, behind))


def _concat(node: ir.Node, trace: Trace) -> None:
    """The output's positions are those of the inputs, one after the other."""
    parts, out = inputs(node), node.outputs[0]
    rank = trace.rank(out)
    if rank < 0 or any(trace.rank(part) != rank for part in parts):
        trace.freeze_node(node, "the number of its axes is not known")
        return
    joined = node.attributes.get_int("axis", 0) % rank
    for axis in range(rank):
        if axis != joined:
            for part in parts:
                trace.join(node, (part, axis), (out, axis))
    _in_a_row(node, trace, [(part, joined) for part in parts], (out, joined))


def _split(node: ir.Node, trace: Trace) -> None:
    value = node.inputs[0]
    assert value is not None
    rank = trace.rank(value)
    if rank < 0 or any(trace.rank(part) != rank for part in node.outputs):
        trace.freeze_node(node, "the number of its axes is not known")
        return
    cut = node.attributes.get_int("axis", 0) % rank
    for axis in range(rank):
        if axis != cut:
            for part in node.outputs:
                trace.join(node, (value, axis), (part, axis))
    _in_a_row(node, trace, [(part, cut) for part in node.outputs], (value, cut))


def _in_a_row(node: ir.Node, trace: Trace, parts: list[Axis], whole: Axis) -> None:
    """Tie the positions of `parts`, one after the other, to those of `whole`."""
    if any(trace.is_free(*axis) for axis in (*parts, whole)):
        trace.freeze(node, [*parts, whole], "the size of one of its parts is not known")
        return
    labels = trace.of(*whole)
    start = 0
    for part in parts:
        shape = trace.sizes(part[0])
        assert shape is not None
        stop = start + int(shape[part[1]])  # type: ignore[arg-type]
        if labels is not None:
            _tie_picked(node, trace, part, labels[start:stop])
        start = stop


def _tie_picked(node: ir.Node, trace: Trace, part: Axis, picked: Index) -> None:
    """Tie `picked` labels to an axis, which may have one position."""
    own = trace.of(*part)
    if own is None and len(picked) == 1:
        # An axis of one position has no label of its own, so it cannot go.
        trace.labels.freeze(picked, node.name or "?", "it is alone on its axis")
    elif len(picked):
        trace.tie(node, own, picked)


def sliced(node: ir.Node, rank: int) -> dict[int, tuple[int, int, int]] | None:
    """Start, end and step by axis of a Slice with constant numbers; None for any other."""
    starts, ends = const(node.inputs[1]), const(node.inputs[2])
    given = [input_at(node, 3), input_at(node, 4)]
    axes, steps = (const(value) for value in given)
    if starts is None or ends is None:
        return None
    if any(v is not None and const(v) is None for v in given):
        return None
    count = starts.size
    order = range(count) if axes is None else [int(a) % rank for a in axes.reshape(-1)]
    by = [1] * count if steps is None else [int(s) for s in steps.reshape(-1)]
    numbers = zip(order, starts.reshape(-1), ends.reshape(-1), by, strict=True)
    return {axis: (int(start), int(end), step) for axis, start, end, step in numbers}


def sliced_positions(cut: tuple[int, int, int], size: int) -> Index:
    """Positions that a Slice picks from an axis."""
    start, end, step = cut
    if step < 0 and end < -size:
        return np.arange(size)[start::step]
    return np.arange(size)[start:end:step]


def _slice(node: ir.Node, trace: Trace) -> None:
    value, out = node.inputs[0], node.outputs[0]
    assert value is not None
    rank = trace.rank(value)
    cuts = sliced(node, rank) if rank >= 0 else None
    if cuts is None or trace.rank(out) != rank:
        trace.freeze_node(node, "the positions it picks are computed")
        return
    keep_axes(node, trace, but=set(cuts))
    for axis, cut in cuts.items():
        labels = trace.of(value, axis)
        if trace.is_free(value, axis):
            trace.freeze(node, [(value, axis), (out, axis)], "it cuts an axis of unknown size")
        elif labels is not None:
            _tie_picked(node, trace, (out, axis), labels[sliced_positions(cut, len(labels))])


def _gather(node: ir.Node, trace: Trace) -> None:
    """Constant indices pick positions; computed ones look rows up in a table (an embedding)."""
    value, ids, out = node.inputs[0], node.inputs[1], node.outputs[0]
    assert value is not None
    assert ids is not None
    rank, more = trace.rank(value), trace.rank(ids)
    if rank < 0 or more < 0 or trace.rank(out) != rank + more - 1:
        trace.freeze_node(node, "the number of its axes is not known")
        return
    picked = node.attributes.get_int("axis", 0) % rank
    for axis in range(rank):
        if axis != picked:
            trace.join(node, (value, axis), (out, axis if axis < picked else axis + more - 1))
    which, labels = const(ids), trace.of(value, picked)
    if which is None:
        for axis in range(more):
            trace.join(node, (ids, axis), (out, picked + axis))
        trace.freeze(node, [(value, picked)], "its rows are looked up by computed numbers")
        if const(value) is not None:
            for axis in range(picked + 1, rank):
                trace.make(node, (out, axis + more - 1))
    elif labels is not None and not trace.is_free(value, picked):
        chosen = labels[which.astype(np.int64)]
        if which.ndim == 1:
            _tie_picked(node, trace, (out, picked), chosen)
        else:
            trace.labels.freeze(chosen, node.name or "?", "it is picked by its number")
            trace.freeze(node, [(out, picked + i) for i in range(more)], "they are picked")
    else:
        axes = [(value, picked), *((out, picked + i) for i in range(more))]
        trace.freeze(node, axes, "it picks from an axis of unknown size")


def padding(node: ir.Node, rank: int) -> list[tuple[int, int]] | None:
    """Positions added before and behind each axis; None where they are computed."""
    pads, axes = const(node.inputs[1]), input_at(node, 3)
    which = const(axes)
    if pads is None or (axes is not None and which is None):
        return None
    order = list(range(rank)) if which is None else [int(a) % rank for a in which.reshape(-1)]
    found = [(0, 0)] * rank
    for place, axis in enumerate(order):
        found[axis] = int(pads[place]), int(pads[place + len(order)])
    return found


def _pad(node: ir.Node, trace: Trace) -> None:
    """Zeros beside units are units that nobody makes."""
    value, out = node.inputs[0], node.outputs[0]
    assert value is not None
    rank = trace.rank(value)
    pads = padding(node, rank) if rank >= 0 else None
    if pads is None:
        trace.freeze_node(node, "the positions it adds are computed")
        return
    constant = node.attributes.get_string("mode", "constant") == "constant"
    for axis, (before, behind) in enumerate(pads):
        if not before and not behind:
            trace.join(node, (value, axis), (out, axis))
        elif not constant or not _pad_axis(trace, (value, axis), (out, axis), before, behind):
            trace.freeze(node, [(value, axis), (out, axis)], "it pads them")


def _pad_axis(trace: Trace, small: Axis, large: Axis, before: int, behind: int) -> bool:
    """Tie the positions that were there before; False where they cannot be told."""
    inner, outer = trace.of(*small), trace.of(*large)
    if inner is None or outer is None or min(before, behind) < 0:
        return False
    if len(outer) != before + len(inner) + behind:
        return False
    trace.labels.tie(inner, outer[before : before + len(inner)])
    return True


def _resize(node: ir.Node, trace: Trace) -> None:
    value, out = node.inputs[0], node.outputs[0]
    assert value is not None
    before, after = trace.sizes(value), trace.sizes(out)
    if before is None or after is None or len(before) != len(after):
        trace.freeze_node(node, "the number of its axes is not known")
        return
    for axis, (a, b) in enumerate(zip(before, after, strict=True)):
        if axis < 2 and a == b:
            trace.join(node, (value, axis), (out, axis))
        else:
            trace.freeze(node, [(value, axis), (out, axis)], "it moves over positions")


def _tile(node: ir.Node, trace: Trace) -> None:
    value, out = node.inputs[0], node.outputs[0]
    repeats = const(node.inputs[1])
    assert value is not None
    rank = trace.rank(value)
    if repeats is None or rank < 0:
        trace.freeze_node(node, "how often it repeats is computed")
        return
    for axis, times in enumerate(repeats.reshape(-1)):
        if times == 1:
            trace.join(node, (value, axis), (out, axis))
        elif not trace.is_one(value, axis):
            trace.freeze(node, [(value, axis), (out, axis)], "it repeats them")


def _blocks(node: ir.Node, trace: Trace) -> None:
    """DepthToSpace and SpaceToDepth: a channel of the narrow side is block**2 of the wide one."""
    value, out = node.inputs[0], node.outputs[0]
    assert value is not None
    trace.join(node, (value, 0), (out, 0))
    spatial = [(v, axis) for v in (value, out) for axis in (2, 3)]
    trace.freeze(node, spatial, "it moves over positions")
    area = node.attributes.get_int("blocksize", 1) ** 2
    deep, narrow = (value, out) if node.op_type == "DepthToSpace" else (out, value)
    wide, few = trace.of(deep, 1), trace.of(narrow, 1)
    if wide is None or few is None or len(wide) != area * len(few):
        trace.freeze(node, [(value, 1), (out, 1)], "its channels cannot be counted")
    elif node.op_type == "DepthToSpace" and node.attributes.get_string("mode", "DCR") == "CRD":
        trace.labels.tie(wide.reshape(-1, area), few[:, None])
    else:
        trace.labels.tie(wide.reshape(area, -1), few[None])


RULES: dict[str, Rule] = {
    "Transpose": _transpose,
    "Concat": _concat,
    "Split": _split,
    "Slice": _slice,
    "Gather": _gather,
    "Pad": _pad,
    "Resize": _resize,
    "Upsample": _resize,
    "Tile": _tile,
    **dict.fromkeys(("DepthToSpace", "SpaceToDepth"), _blocks),
}
