"""Exporters' habits, undone: casts to the dtype a value has, states of zeros, split transposes."""

from __future__ import annotations

import onnx_ir as ir

from edgebm.ir.edit import const, input_at, remove_dead, replace_uses, sole_user
from edgebm.ir.model import Model
from edgebm.ir.rewrite import put, rank

_RECURRENT = ("LSTM", "GRU", "RNN")
# Ops whose output is all zeros if their first input is.
_KEEP_ZEROS = frozenset(
    {"Expand", "Slice", "Reshape", "Transpose", "Unsqueeze", "Squeeze", "Identity", "Cast", "Tile"}
)
_SUMS = ("Identity", "Add")
_MAX_STEPS = 16


def simplify(model: Model) -> int:
    """Apply the rewrites below once over the graph, in place; return how many were made.

    - `CastLike` becomes `Cast`; a cast to the dtype the value has already becomes `Identity`
    - an initial state of zeros is left out: zero is the default
    - Reshape to 3d, Transpose, Reshape back becomes one Transpose of the last two axes
    - `Sum` of two values becomes `Add`, of one `Identity`
    - an `Expand` to the shape the value has already becomes `Identity`
    """
    changed = 0
    for node in list(model.graph.graph):
        if node.op_type in ("CastLike", "Cast"):
            changed += _cast(node)
        elif node.op_type == "Sum" and len(node.inputs) <= len(_SUMS):
            node.op_type = _SUMS[len(node.inputs) - 1]
            changed += 1
        elif node.op_type in _RECURRENT:
            changed += _drop_zero_states(node)
        elif node.op_type == "Reshape":
            changed += _split_transpose(model.graph.graph, node)
    if changed:
        remove_dead(model.graph.graph)
    return changed


def _cast(node: ir.Node) -> bool:
    value = node.inputs[0]
    if value is None:
        return False
    changed = False
    if node.op_type == "CastLike":
        like = node.inputs[1]
        if like is None or like.dtype is None:
            return False
        node.op_type = "Cast"
        node.resize_inputs(1)
        put(node, "to", int(like.dtype))
        changed = True
    if value.dtype is not None and node.attributes.get_int("to", 0) == int(value.dtype):
        node.op_type = "Identity"
        node.attributes.clear()
        changed = True
    return changed


def _drop_zero_states(node: ir.Node) -> bool:
    changed = False
    for index in (5, 6):
        value = input_at(node, index)
        if value is not None and _is_zeros(value, _MAX_STEPS):
            node.replace_input_with(index, None)
            changed = True
    return changed


def _is_zeros(value: ir.Value, steps: int) -> bool:
    array = const(value)
    if array is not None:
        return array.size > 0 and not array.any()
    producer = value.producer()
    if producer is None or not steps or producer.domain:
        return False
    if producer.op_type == "ConstantOfShape":
        fill = producer.attributes.get("value")
        return fill is None or not fill.as_tensor().numpy().any()
    first = input_at(producer, 0)
    return producer.op_type in _KEEP_ZEROS and first is not None and _is_zeros(first, steps - 1)


def _split_transpose(graph: ir.Graph, last: ir.Node) -> bool:
    """Match `last` as the end of Reshape, Transpose, Reshape that swaps the last two axes."""
    middle = _sole_producer(last, "Transpose")
    first = _sole_producer(middle, "Reshape") if middle is not None else None
    if middle is None or first is None:
        return False
    source, out = first.inputs[0], last.outputs[0]
    if list(middle.attributes.get_ints("perm", [])) != [0, 2, 1]:
        return False
    dims = rank(source)
    if source is None or source.shape is None or out.shape is None or dims is None or dims < 4:
        return False
    flat = first.outputs[0].shape
    swapped = [*source.shape[:-2], source.shape[-1], source.shape[-2]]
    if flat is None or len(flat) != 3 or list(flat)[1:] != list(source.shape)[-2:]:
        return False
    if len(out.shape) != dims or list(out.shape) != swapped or _unnamed(swapped):
        return False
    perm = [*range(dims - 2), dims - 1, dims - 2]
    swap = ir.node("Transpose", [source], {"perm": perm})
    swap.name = middle.name
    graph.insert_before(last, swap)
    fresh, label = swap.outputs[0], out.name
    fresh.type, fresh.shape = out.type, out.shape
    replace_uses(out, fresh)
    graph.remove(last, safe=True)
    fresh.name = label
    return True


def _sole_producer(node: ir.Node, op_type: str) -> ir.Node | None:
    value = input_at(node, 0)
    producer = None if value is None else value.producer()
    if value is None or producer is None or producer.op_type != op_type:
        return None
    return producer if sole_user(value) is node else None


def _unnamed(dims: list[int | ir.SymbolicDim]) -> bool:
    return any(isinstance(dim, ir.SymbolicDim) and dim.value is None for dim in dims)
