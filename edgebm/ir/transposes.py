"""Transposes that undo each other with elementwise operations between them.

Channels-last frameworks leave them around every convolution. What lies between two of them is
computed in the layout in front of the first one, and both go.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import onnx_ir as ir

from edgebm.ir.edit import const, free_name, main_graph, name, set_const
from edgebm.ir.layout_region import (
    BROADCAST,
    ONE_AXIS,
    REDUCTIONS,
    Perm,
    Region,
    inverse,
    moved_inputs,
    perm_of,
    reduced_axes,
)
from edgebm.ir.model import Model
from edgebm.ir.rewrite import put


def cancel_transposes(model: Model) -> int:
    """Remove transposes, in place, wherever fewer are enough; return how many changes were made.

    - one behind another becomes one; one that changes nothing becomes `Identity`
    - nodes that do the same in any layout (elementwise, Concat, Softmax, means) are computed in
      the layout in front of the transposes that feed them, where that saves transposes; also
      where it brings a bias or an activation to the convolution it belongs to
    """
    changed = 0
    for node in list(model.nodes("Transpose")):
        if node.graph is not None:
            changed += _joined(node) or _sunk(node)
    return changed


def _joined(node: ir.Node) -> bool:
    """Make one of two transposes in a row, and nothing of one that keeps every axis."""
    value = node.inputs[0]
    before = None if value is None else value.producer()
    perm = perm_of(node)
    if perm is None:
        return False
    if perm == tuple(range(len(perm))):
        node.op_type = "Identity"
        node.attributes.clear()
        return True
    first = perm_of(before) if before is not None and before.op_type == "Transpose" else None
    if before is None or first is None:
        return False
    node.replace_input_with(0, before.inputs[0])
    put(node, "perm", [first[axis] for axis in perm])
    return True


def _sunk(start: ir.Node) -> bool:
    perm = perm_of(start)
    if perm is None or start.inputs[0] is None:
        return False
    region = Region(main_graph(start), perm)
    if not region.grow(start) or not region.nodes:
        return False
    gain = region.gain()
    if gain < 0 or (gain == 0 and not region.moves_down(start)):
        return False
    _rewrite(region)
    return True


def _rewrite(region: Region) -> None:
    perm, back = region.perm, inverse(region.perm)
    for node in region.nodes:
        _turn(node, perm, back)
    for entry in region.entries:
        source = entry.inputs[0]
        assert source is not None
        for use in tuple(entry.outputs[0].uses()):
            if use.node in region.nodes or use.node in region.exits:
                use.node.replace_input_with(use.idx, source)
    for value in region.foreign:
        _turn_foreign(region, value, back)
    for value in region.kept:
        _turn_back(region, value)
    for node in region.exits:
        node.op_type = "Identity"
        node.attributes.clear()
    for node in region.nodes:
        out = node.outputs[0]
        if out.shape is not None and len(out.shape) == len(perm):
            dims = list(out.shape)
            out.shape = ir.Shape([dims[axis] for axis in back])


def _turn(node: ir.Node, perm: Perm, back: Perm) -> None:
    """Give a node the axes and constants of the inner layout."""
    dims = len(perm)
    if node.op_type in REDUCTIONS:
        axes = reduced_axes(node, perm)
        assert axes is not None
        set_const(node, 1, np.array(axes, np.int64), suffix="turned")
    elif node.op_type in ONE_AXIS:
        axis = node.attributes.get_int("axis", -1) % dims
        put(node, "axis", perm[axis])
    if node.op_type not in BROADCAST and node.op_type != "Concat":
        return
    for index, value in enumerate(node.inputs):
        array = const(value)
        if array is None or not array.ndim or (array.size == 1 and node.op_type != "Concat"):
            continue
        full = array.reshape((1,) * (dims - array.ndim) + array.shape)
        set_const(node, index, np.ascontiguousarray(full.transpose(back)), suffix="turned")


def _turn_foreign(region: Region, value: ir.Value, back: Perm) -> None:
    readers = [use for use in tuple(value.uses()) if use.node in region.nodes]
    readers = [u for u in readers if any(value is v for v in moved_inputs(u.node))]
    turned = _transpose(region.graph, value, back, back)
    for use in readers:
        use.node.replace_input_with(use.idx, turned)


def _turn_back(region: Region, value: ir.Value) -> None:
    """Put a transpose between a value of the region and its readers outside."""
    readers = [
        use
        for use in tuple(value.uses())
        if use.node not in region.nodes and use.node not in region.exits
    ]
    graph = region.graph
    out = _transpose(graph, value, region.perm, range(len(region.perm)))
    for use in readers:
        use.node.replace_input_with(use.idx, out)
    if value.is_graph_output():
        for index, given in enumerate(graph.outputs):
            if given is value:
                graph.outputs[index] = out
        label = name(value)
        value.name = free_name(graph, f"{label}_turned")
        out.name = label


def _transpose(
    graph: ir.Graph, value: ir.Value, perm: Sequence[int], dims: Sequence[int]
) -> ir.Value:
    """A transpose of `value`, placed behind what computes it; `dims` are its sizes, by axis of
    what the shape of `value` says now: that of a value of a region is still the outer one.
    """
    node = ir.node("Transpose", [value], {"perm": list(perm)})
    out, producer = node.outputs[0], value.producer()
    out.type = value.type
    if value.shape is not None and len(value.shape) == len(perm):
        out.shape = ir.Shape([value.shape[axis] for axis in dims])
    if producer is not None:
        graph.insert_after(producer, node)
    else:
        graph.insert_before(next(iter(graph)), node)
    return out
