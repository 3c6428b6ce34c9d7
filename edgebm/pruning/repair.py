"""What an op's attributes and index constants become when positions of its values go."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial

import numpy as np
import onnx_ir as ir

from edgebm.ir.edit import add_const, add_node, const, main_graph, set_const, take_over
from edgebm.ir.recurrent import GATES, R
from edgebm.ir.rewrite import put
from edgebm.pruning.group import Index
from edgebm.pruning.removal import Kept, Removal
from edgebm.pruning.rules_layers import whole_groups
from edgebm.pruning.rules_moves import padding, sliced, sliced_positions

Edit = Callable[[], object]
Repair = Callable[[ir.Node, Removal], Iterator[Edit]]


def edits_of(node: ir.Node, removal: Removal) -> Iterator[Edit]:
    """What to do to `node`, decided on the graph as it was. Shape inputs: `targets`."""
    shuffle = removal.trace.shuffles.get(node)
    if shuffle is not None:
        if node is shuffle.last:
            yield from _shuffle(node, removal)
    elif (repair := _REPAIRS.get(node.op_type)) is not None:
        yield from repair(node, removal)


def _renumbered(kept: Kept) -> Index:
    """The new number of each position that stays."""
    return np.cumsum(kept, dtype=np.int64) - 1


def _conv(node: ir.Node, removal: Removal) -> Iterator[Edit]:
    value, groups = node.inputs[0], node.attributes.get_int("group", 1)
    kept = None if value is None or groups == 1 else removal.kept(value, 1)
    if kept is not None:
        each = len(kept) // groups
        if whole_groups(groups, each):
            yield partial(put, node, "group", int(kept.sum()) // each)


def _recurrent(node: ir.Node, removal: Removal) -> Iterator[Edit]:
    weight = node.inputs[R]
    kept = None if weight is None else removal.kept(weight, 2)
    if kept is not None:
        yield partial(put, node, "hidden_size", int(kept.sum()))


def _split(node: ir.Node, removal: Removal) -> Iterator[Edit]:
    value = node.inputs[0]
    assert value is not None
    axis = node.attributes.get_int("axis", 0) % removal.trace.rank(value)
    if removal.kept(value, axis) is not None:
        counts = []
        for part in node.outputs:
            shape, kept = removal.trace.sizes(part), removal.kept(part, axis)
            assert shape is not None
            counts.append(shape[axis] if kept is None else int(kept.sum()))
        sizes = np.asarray(counts, np.int64)
        yield lambda: node.attributes.pop("num_outputs", None)
        yield partial(set_const, node, 1, sizes, suffix="cut")


def _slice(node: ir.Node, removal: Removal) -> Iterator[Edit]:
    """Where what is left does not lie in a row it is gathered."""
    value = node.inputs[0]
    assert value is not None
    cuts = sliced(node, removal.trace.rank(value)) or {}
    masks = {axis: removal.kept(value, axis) for axis in cuts}
    if all(kept is None for kept in masks.values()):
        return
    rows, gathered = [], []
    for axis, numbers in cuts.items():
        kept = masks[axis]
        if kept is None:
            rows.append((axis, *numbers))
            continue
        positions = sliced_positions(numbers, len(kept))
        left = _renumbered(kept)[positions[kept[positions]]]
        if (np.diff(left) == 1).all():
            rows.append((axis, int(left[0]), int(left[-1]) + 1, 1))
        else:
            gathered.append((axis, left))
    yield partial(_write_slice, node, rows, gathered)


def _write_slice(
    node: ir.Node, rows: list[tuple[int, int, int, int]], gathered: list[tuple[int, Index]]
) -> None:
    graph = main_graph(node)
    for axis, left in gathered:
        ids = add_const(graph, f"{node.name}.{axis}", left)
        out = add_node(node, "Gather", [node.inputs[0], ids], {"axis": axis})
        out.producer().name = f"{node.name}.{axis}"  # type: ignore[union-attr]
        out.name = f"{node.name}.{axis}_out"
        node.replace_input_with(0, out)
    if not rows:
        value = node.inputs[0]
        assert value is not None
        node.op_type = "Identity"
        node.resize_inputs(1)
        return
    for index, column in zip((3, 1, 2, 4), zip(*rows, strict=True), strict=True):
        set_const(node, index, np.asarray(column, np.int64), suffix="cut")


def _gather(node: ir.Node, removal: Removal) -> Iterator[Edit]:
    value, which = node.inputs[0], const(node.inputs[1])
    assert value is not None
    axis = node.attributes.get_int("axis", 0) % removal.trace.rank(value)
    kept = removal.kept(value, axis)
    if kept is not None and which is not None:
        picked = np.where(which < 0, which + len(kept), which).astype(np.int64)
        if picked.ndim == 1:
            picked = picked[kept[picked]]
        yield partial(set_const, node, 1, _renumbered(kept)[picked], suffix="cut")


def _shuffle(node: ir.Node, removal: Removal) -> Iterator[Edit]:
    shuffle = removal.trace.shuffles[node]
    value = shuffle.first.inputs[0]
    kept = None if value is None else removal.kept(value, shuffle.axis)
    if value is not None and kept is not None:
        left = _renumbered(kept)[shuffle.order[kept[shuffle.order]]]
        yield partial(_write_shuffle, node, value, shuffle.axis, left)


def _write_shuffle(node: ir.Node, value: ir.Value, axis: int, order: Index) -> None:
    ids = add_const(main_graph(node), f"{node.name}.order", order)
    out = add_node(node, "Gather", [value, ids], {"axis": axis})
    take_over(node.outputs[0], out)
    made = out.producer()
    assert made is not None
    made.name, node.name = node.name, None


def _pad(node: ir.Node, removal: Removal) -> Iterator[Edit]:
    value, out = node.inputs[0], node.outputs[0]
    assert value is not None
    rank = removal.trace.rank(value)
    pads = padding(node, rank)
    masks = [removal.kept(out, axis) for axis in range(rank)]
    if pads is None or all(kept is None for kept in masks):
        return
    found = []
    for (before, behind), kept in zip(pads, masks, strict=True):
        if kept is None:
            found.append((before, behind))
        else:
            found.append((int(kept[:before].sum()), int(kept[len(kept) - behind :].sum())))
    numbers = np.asarray(found, np.int64).T.reshape(-1)
    yield partial(_write_pad, node, numbers)


def _write_pad(node: ir.Node, numbers: Index) -> None:
    set_const(node, 1, numbers, suffix="cut")
    if len(node.inputs) > 3:
        node.replace_input_with(3, None)


_REPAIRS: dict[str, Repair] = {
    **dict.fromkeys(("Conv", "ConvTranspose"), _conv),
    **dict.fromkeys(GATES, _recurrent),
    "Split": _split,
    "Slice": _slice,
    "Gather": _gather,
    "Pad": _pad,
}
