"""From a model to its trace: every op by its rule."""

from __future__ import annotations

import onnx_ir as ir

from edgebm.ir.edit import const
from edgebm.ir.model import Model
from edgebm.pruning import (
    rules_axes,
    rules_einsum,
    rules_layers,
    rules_moves,
    rules_recurrent,
    rules_reshape,
)
from edgebm.pruning.rules_axes import Rule
from edgebm.pruning.shuffle import shuffles
from edgebm.pruning.targets import known_sizes, shape_input
from edgebm.pruning.trace import Trace

RULES: dict[str, Rule] = {
    **rules_axes.RULES,
    **rules_layers.RULES,
    **rules_recurrent.RULES,
    **rules_einsum.RULES,
    **rules_moves.RULES,
    **rules_reshape.RULES,
}


def follow(model: Model) -> Trace:
    """Labels for every axis of a canonical model."""
    graph, known = model.graph.graph, known_sizes(model)
    trace = Trace(shuffles(model))
    for value in graph.inputs:
        trace.freeze_values(None, [value], f"they come with the model input '{value.name}'")
    for value in graph.outputs:
        trace.freeze_values(
            value.producer(), [value], f"they are part of the model output '{value.name}'"
        )
    for node in graph:
        if node in trace.shuffles and node is not trace.shuffles[node].last:
            continue
        rule = RULES.get(node.op_type)
        if rule is None:
            trace.freeze_node(node, f"it is not known how to narrow {node.op_type}")
        elif any(_is_unranked(trace, value) for value in node.inputs):
            trace.freeze_node(node, "the number of axes of its input is not known")
        else:
            rule(node, trace)
            target = shape_input(node)
            if target is not None and const(target) is None and target not in known:
                trace.freeze_values(node, node.outputs, "how large it makes them is computed")
    return trace


def _is_unranked(trace: Trace, value: ir.Value | None) -> bool:
    return value is not None and trace.rank(value) < 0
