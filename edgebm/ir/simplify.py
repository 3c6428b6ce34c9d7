"""Exporters' habits, undone: casts to the dtype a value has, states of zeros, split transposes."""

from __future__ import annotations

import numpy as np
import onnx_ir as ir

from edgebm.ir.edit import (
    Array,
    const,
    input_at,
    inputs,
    remove_dead,
    replace_uses,
    set_const,
    sole_user,
)
from edgebm.ir.model import Model
from edgebm.ir.recurrent import INITIAL_C, INITIAL_H
from edgebm.ir.rewrite import known, put, rank
from edgebm.ir.traits import RECURRENT

# Ops whose output has no other numbers than their first input.
_MOVES = frozenset(
    {
        "Expand", "Slice", "Reshape", "Transpose", "Unsqueeze", "Squeeze", "Identity", "Cast",
        "Tile", "Split", "Gather",
    }
)  # fmt: skip
_SUMS = ("Identity", "Add")
_MAX_STEPS = 16
_FAR = 2**31 - 1  # past every axis: sizes are of 32 bits in what exporters write


def simplify(model: Model) -> int:
    """Apply the rewrites below once over the graph, in place; return how many were made.

    - `CastLike` becomes `Cast`; a cast to the dtype the value has already becomes `Identity`
    - an initial state of zeros is left out: zero is the default
    - Reshape to 3d, Transpose, Reshape back becomes one Transpose of the last two axes
    - `Sum` of two values becomes `Add`, of one `Identity`; so does a `Concat` of one,
      and a `Slice` of whole axes; whole axes of another `Slice` are not named
    - an `Expand` to the shape the value has already becomes `Identity`
    """
    changed = 0
    for node in list(model.graph.graph):
        if node.op_type in ("CastLike", "Cast"):
            changed += _cast(node)
        elif node.op_type == "Sum" and len(node.inputs) <= len(_SUMS):
            node.op_type = _SUMS[len(node.inputs) - 1]
            changed += 1
        elif _is_nothing(node):
            node.op_type = "Identity"
            node.attributes.clear()
            node.resize_inputs(1)
            changed += 1
        elif node.op_type == "Slice":
            changed += _without_whole_axes(node)
        elif node.op_type in RECURRENT:
            changed += _drop_zero_states(node)
        elif node.op_type == "Reshape":
            changed += _split_transpose(model.graph.graph, node)
    if changed:
        remove_dead(model.graph.graph)
    return changed


def _is_nothing(node: ir.Node) -> bool:
    """A Concat of one value, or a Slice of whole axes (`x[:, t]` is one, and a Gather)."""
    if node.op_type != "Slice":
        return node.op_type == "Concat" and len(node.inputs) == 1
    starts, ends, _, steps = (const(input_at(node, index)) for index in range(1, 5))
    if starts is None or ends is None:
        return False
    forward = input_at(node, 4) is None or (steps is not None and (steps == 1).all())
    return forward and not starts.any() and bool((ends >= _FAR).all())


def _without_whole_axes(node: ir.Node) -> bool:
    """Name only the axes that are cut: TensorFlow's `x[:, a:b]` names both."""
    given = [const(input_at(node, index)) for index in range(1, 5)]
    starts, ends, axes, steps = given
    if starts is None or ends is None or axes is None or axes.size < 2:
        return False
    whole = (starts == 0) & (ends >= _FAR)
    if steps is not None:
        whole &= steps == 1
    elif input_at(node, 4) is not None:
        return False
    if not whole.any() or whole.all():
        return False
    for index, array in enumerate(given, 1):
        if array is not None:
            set_const(node, index, np.asarray(array[~whole]), suffix="cut")
    return True


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
    for index in (INITIAL_H, INITIAL_C):
        value = input_at(node, index)
        if value is not None and is_zeros(value):
            node.replace_input_with(index, None)
            changed = True
    return changed


def is_zeros(value: ir.Value) -> bool:
    """Whether every element is zero, whatever the sizes."""
    return spread(value) == 0


def spread(value: ir.Value, steps: int = _MAX_STEPS) -> float | None:
    """The one number that every element is, whatever the sizes; None if there is no such number.

    Seen are constants, `ConstantOfShape`, and what moves, cuts or repeats them.
    """
    array = known(value)
    if array is not None:
        return _only(array)
    producer = value.producer()
    if producer is None or not steps or producer.domain:
        return None
    if producer.op_type == "ConstantOfShape":
        fill = producer.attributes.get("value")
        return 0.0 if fill is None else _only(fill.as_tensor().numpy())
    parts = inputs(producer)
    if producer.op_type == "Concat":
        found = {spread(part, steps - 1) for part in parts}
        return found.pop() if len(found) == 1 else None
    if producer.op_type == "MatMul":  # weights are finite: `check.verify`
        return 0.0 if spread(parts[0], steps - 1) == 0 and known(parts[1]) is not None else None
    return spread(parts[0], steps - 1) if producer.op_type in _MOVES and parts else None


def _only(array: Array) -> float | None:
    same = array.size > 0 and array.dtype.kind in "fiu" and (array == array.flat[0]).all()
    return float(array.flat[0]) if same else None


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
