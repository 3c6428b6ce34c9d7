"""Removal of what carries no meaning: identities, inference-mode dropout, unused nodes."""

from __future__ import annotations

import onnx_ir as ir

from edgebm.ir.edit import const, input_at, remove_dead, replace_uses
from edgebm.ir.model import Model


def clean_up(model: Model) -> int:
    """Remove identities and inference-mode dropouts, then what nobody reads; count removals."""
    removed = 0
    for node in list(model.graph.graph):
        if _is_inactive_dropout(node):
            node.op_type = "Identity"
            node.attributes.clear()
            node.resize_inputs(1)
            node.resize_outputs(1)
        if node.op_type == "Identity":
            removed += _drop(model.graph.graph, node)
    return removed + remove_dead(model.graph.graph)


def _is_inactive_dropout(node: ir.Node) -> bool:
    if node.op_type != "Dropout":
        return False
    if len(node.outputs) > 1 and (node.outputs[1].uses() or node.outputs[1].is_graph_output()):
        return False
    training = input_at(node, 2)
    if training is None:
        return True
    flag = const(training)
    return flag is not None and not flag.any()


def _drop(graph: ir.Graph, node: ir.Node) -> bool:
    """Remove a node that hands its first input on, unless a name of the face hangs on it."""
    value, out = node.inputs[0], node.outputs[0]
    if value is None:
        return False
    if not out.is_graph_output():
        replace_uses(out, value)
        graph.remove(node, safe=True)
        return True
    if value.producer() is None or value.is_graph_output():
        return False
    label = out.name
    value.type, value.shape = out.type or value.type, out.shape or value.shape
    replace_uses(out, value)
    graph.remove(node, safe=True)
    value.name = label
    return True


def fix_names(model: Model) -> None:
    """Give every node and value one name of its own; those that have one keep it.

    The names of model inputs and outputs are never the ones to change. A node without a name
    becomes `OpType_N`; the second node or value of a name gets a number.
    """
    graph = model.graph.graph
    face = [value.name for value in (*graph.inputs, *graph.outputs)]
    nodes_taken: set[str] = set()
    counts: dict[str, int] = {}
    for node in graph:
        node.name = _unused(node.name or _numbered(node.op_type, counts), nodes_taken)
    values_taken = {label for label in face if label}
    for value in graph.initializers.values():
        if value.name not in values_taken:
            values_taken.add(value.name or "")
    for node in graph:
        for index, value in enumerate(node.outputs):
            if value.name == "" or value.is_graph_output():
                continue
            value.name = _unused(value.name or f"{node.name}_out{index}", values_taken)


def _numbered(op_type: str, counts: dict[str, int]) -> str:
    counts[op_type] = counts.get(op_type, -1) + 1
    return f"{op_type}_{counts[op_type]}"


def _unused(label: str, taken: set[str]) -> str:
    tried, number = label, 1
    while tried in taken:
        tried, number = f"{label}_{number}", number + 1
    taken.add(tried)
    return tried
