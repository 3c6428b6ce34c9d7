"""The few graph edits every pass needs. Each keeps the graph valid.

Names of graph inputs and outputs never change. Weight arrays are shared between clones, so
they are handed out read-only: a changed weight is a new initializer.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray

from edgebm.errors import ModelError

Array = NDArray[Any]
Attribute = int | float | str | Sequence[int] | Sequence[float]


def const(value: ir.Value | None) -> Array | None:
    """The constant behind `value` as a read-only array, or None if it is computed."""
    if value is None or value.const_value is None:
        return None
    array: Array = value.const_value.numpy().view()
    array.flags.writeable = False
    return array


def dequantized(value: ir.Value | None) -> Array | None:
    """The float32 array behind a DequantizeLinear of constants, or None for anything else.

    Its zero point counts as zero: weights and biases are stored symmetrically.
    """
    node = None if value is None else value.producer()
    if node is None or node.op_type != "DequantizeLinear":
        return None
    stored, scale = const(node.inputs[0]), const(node.inputs[1])
    if stored is None or scale is None:
        return None
    shape = [1] * stored.ndim
    if scale.ndim:
        shape[node.attributes.get_int("axis", 1)] = -1
    return np.asarray(stored * scale.reshape(shape), np.float32)


def inputs(node: ir.Node) -> list[ir.Value]:
    """The inputs that are present. Optional ones left out are not in the list."""
    return [value for value in node.inputs if value is not None]


def input_at(node: ir.Node, index: int) -> ir.Value | None:
    """Input `index` by its place in the op's signature, or None where it is left out."""
    return node.inputs[index] if index < len(node.inputs) else None


def name(value: ir.Value) -> str:
    """The value's name. Loading gives every value one, so none is a bug."""
    assert value.name is not None
    return value.name


def main_graph(node: ir.Node) -> ir.Graph:
    """The graph that holds `node`."""
    assert isinstance(node.graph, ir.Graph)
    return node.graph


def sole_user(value: ir.Value) -> ir.Node | None:
    """The one node that reads `value`, or None if several do or it is an output."""
    uses = tuple(value.uses())
    return uses[0].node if len(uses) == 1 and not value.is_graph_output() else None


def set_const(node: ir.Node, index: int, array: Array, *, suffix: str) -> ir.Value:
    """Give `node` its own initializer at `index`; other readers keep the old one.

    The new one takes the old one's name if nobody else reads that, else the name with
    `.suffix` added.
    """
    graph = main_graph(node)
    old = input_at(node, index)
    base = (old.name if old is not None else None) or f"{node.name or node.op_type}.{index}"
    owned = old is not None and old.is_initializer() and not old.is_graph_output()
    sole = old is not None and owned and len(tuple(old.uses())) == 1
    if sole:
        graph.initializers.pop(base, None)
    fresh = add_const(graph, base if sole else f"{base}.{suffix}", array)
    if index >= len(node.inputs):
        node.resize_inputs(index + 1)
    node.replace_input_with(index, fresh)
    return fresh


def replace_const(old: ir.Value, array: Array) -> ir.Value:
    """Give every reader of the initializer `old` a new one of the same name."""
    graph, label = old.graph, name(old)
    assert isinstance(graph, ir.Graph)
    graph.initializers.pop(label)
    fresh = add_const(graph, label, array)
    replace_uses(old, fresh)
    return fresh


def add_const(graph: ir.Graph, label: str, array: Array) -> ir.Value:
    """Register a new initializer and return the value to wire it in with.

    A number is added to `label` where another value has that name.
    """
    label = free_name(graph, label)
    fresh = ir.val(label, const_value=ir.tensor(array, name=label))
    graph.register_initializer(fresh)
    return fresh


def free_name(graph: ir.Graph, label: str) -> str:
    """`label`, or `label` with the first number that makes it new among the graph's values."""
    if label not in graph.initializers and not _is_taken(graph, label):
        return label
    number = 1
    while (tried := f"{label}_{number}") in graph.initializers or _is_taken(graph, tried):
        number += 1
    return tried


def _is_taken(graph: ir.Graph, label: str) -> bool:
    if any(value.name == label for value in graph.inputs):
        return True
    return any(value.name == label for node in graph for value in node.outputs)


def add_node(
    before: ir.Node,
    op_type: str,
    args: Sequence[ir.Value | None],
    attributes: dict[str, Attribute] | None = None,
    *,
    label: str = "",
) -> ir.Value:
    """Insert a one-output node in front of `before` and return its output (no type yet)."""
    owner = before.graph
    assert owner is not None
    node = ir.node(op_type, args, attributes)
    node.name = label or None
    if label:
        node.outputs[0].name = f"{label}_out"
    owner.insert_before(before, node)
    return node.outputs[0]


def insert_after(
    value: ir.Value, op_type: str, attributes: dict[str, Attribute] | None = None, *, label: str
) -> ir.Value:
    """Put a one-input node behind `value`: every reader of `value` then reads the new output.

    Where `value` is a graph output the new node writes it, under the same name.
    """
    producer = value.producer()
    node = ir.node(op_type, [], attributes)
    node.name = label
    out = node.outputs[0]
    out.type, out.shape = value.type, value.shape
    out.name = f"{name(value)}_{label}"
    was_output, old_name = value.is_graph_output(), name(value)
    replace_uses(value, out)
    node.resize_inputs(1)
    node.replace_input_with(0, value)
    if producer is not None:
        main_graph(producer).insert_after(producer, node)
    else:
        assert value.graph is not None
        _prepend(value.graph, node)
    if was_output:
        value.name = free_name(main_graph(node), f"{old_name}_before_{label}")
        out.name = old_name
    return out


def _prepend(graph: ir.Graph, node: ir.Node) -> None:
    first = next(iter(graph), None)
    if first is None:
        graph.append(node)
    else:
        graph.insert_before(first, node)


def replace_uses(old: ir.Value, new: ir.Value) -> None:
    """Let every reader of `old`, the graph's outputs included, read `new`."""
    ir.convenience.replace_all_uses_with(old, new, replace_graph_outputs=True)


def take_over(old: ir.Value, new: ir.Value) -> None:
    """Let `new` stand for `old` everywhere, under its name, type and shape; `old` has none."""
    new.type, new.shape = old.type, old.shape
    kept, old.name = old.name, None
    replace_uses(old, new)
    new.name = kept


def why_not_bypass(node: ir.Node, value: ir.Value) -> str:
    """Why `bypass` would change a name of the model's face; empty if it would not."""
    if not node.outputs[0].is_graph_output():
        return ""
    if value.is_graph_output():
        return "its input is a model output too"
    if value.producer() is None:
        return "its input is a model input or a constant, and its output is a model output"
    return ""


def bypass(node: ir.Node, value: ir.Value) -> None:
    """Let `value` take the place of `node`'s first output; drop `node`.

    A value that a node computes takes the output's name and type too, unless it is itself
    a model output: then both readers use its own name.

    Raises:
        ModelError: the model's face would change (`why_not_bypass` says it beforehand).
    """
    if why := why_not_bypass(node, value):
        raise ModelError(f"node '{node.name}' cannot be removed: {why}")
    out = node.outputs[0]
    renamed = value.producer() is not None and not value.is_graph_output()
    label = out.name
    if renamed:
        value.type, value.shape = out.type or value.type, out.shape or value.shape
    replace_uses(out, value)
    main_graph(node).remove(node, safe=True)
    if renamed:
        value.name = label


def remove_dead(graph: ir.Graph) -> int:
    """Remove nodes nobody reads and initializers nobody uses; return how many nodes went."""
    removed = 0
    for node in reversed(graph):
        if not any(out.is_graph_output() or tuple(out.uses()) for out in node.outputs):
            graph.remove(node, safe=True)
            removed += 1
    for label, value in list(graph.initializers.items()):
        if not tuple(value.uses()) and not value.is_graph_output():
            graph.initializers.pop(label)
    return removed
