"""Lists of pieces, as exporters write `torch.split` and `chunk`, become one Split."""

from __future__ import annotations

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray

from edgebm.ir.edit import add_node, const, input_at, replace_uses
from edgebm.ir.model import Model
from edgebm.ir.rewrite import constant


def split_sequences(model: Model) -> int:
    """Replace `SplitToSequence` whose pieces are read one by one by `Split`, in place.

    The axis and the place of each piece must be known. Returns how many were replaced.
    """
    graph = model.graph.graph
    return sum(_replace(graph, node) for node in list(model.nodes("SplitToSequence")))


def _replace(graph: ir.Graph, node: ir.Node) -> bool:
    value = node.inputs[0]
    readers = [usage.node for usage in node.outputs[0].uses()]
    sizes = _sizes(node)
    if value is None or sizes is None or node.outputs[0].is_graph_output():
        return False
    places = [_place(reader, len(sizes)) for reader in readers]
    if any(place is None for place in places):
        return False
    axis = _axis(node)
    split = ir.node(
        "Split",
        [value, constant(node, _array(sizes))],
        {"axis": axis},
        num_outputs=len(sizes),
    )
    split.name = node.name
    graph.insert_before(node, split)
    squeezed = input_at(node, 1) is None and not node.attributes.get_int("keepdims", 1)
    for reader, place in zip(readers, places, strict=True):
        assert place is not None
        piece = split.outputs[place]
        if squeezed:
            piece = add_node(reader, "Squeeze", [piece, constant(reader, _array([axis]))])
        _hand_over(graph, reader, piece)
    graph.remove(node, safe=True)
    return True


def _hand_over(graph: ir.Graph, reader: ir.Node, piece: ir.Value) -> None:
    end = ir.node("Identity", [piece])
    graph.insert_before(reader, end)
    out, label = reader.outputs[0], reader.outputs[0].name
    end.outputs[0].type, end.outputs[0].shape = out.type, out.shape
    replace_uses(out, end.outputs[0])
    out.name = None
    end.outputs[0].name = label
    graph.remove(reader, safe=True)


def _sizes(node: ir.Node) -> list[int] | None:
    """The length of each piece along the axis, or None where it cannot be told."""
    value, given = node.inputs[0], input_at(node, 1)
    shape = None if value is None else value.shape
    whole = None if shape is None else shape[_axis(node)]
    if not isinstance(whole, int):
        return None
    lengths = np.asarray(1) if given is None else const(given)
    if lengths is None or (lengths <= 0).any():
        return None
    if lengths.ndim:
        return [int(n) for n in lengths]
    chunk = int(lengths)
    rest = whole % chunk
    return [chunk] * (whole // chunk) + ([rest] if rest else [])


def _axis(node: ir.Node) -> int:
    return node.attributes.get_int("axis", 0)


def _place(reader: ir.Node, count: int) -> int | None:
    index = const(input_at(reader, 1)) if reader.op_type == "SequenceAt" else None
    if index is None or not -count <= int(index) < count:
        return None
    return int(index) % count


def _array(numbers: list[int]) -> NDArray[np.int64]:
    return np.asarray(numbers, np.int64)
