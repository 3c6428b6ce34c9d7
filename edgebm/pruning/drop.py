"""Take blocks out of a graph."""

from __future__ import annotations

from collections.abc import Sequence

import onnx_ir as ir

from edgebm.errors import ModelError
from edgebm.ir.edit import bypass, const, name, remove_dead
from edgebm.ir.model import Model
from edgebm.pruning.blocks import Block


def drop(model: Model, blocks: Sequence[Block]) -> Model:
    """Remove blocks from `model`, in place, one after the other.

    Nodes that stay keep their names. A value that takes the place of another takes its name too:
    it is what later layers read under that name. Activations that do nothing any more, such as a
    Relu behind a Relu, go as well.

    Args:
        model: the one that `find_blocks` was asked about, or a copy.
        blocks: one whose last node went with an earlier one is left out.

    Raises:
        ModelError: a block whose `start` went with an earlier one, or without which an input of
            the model would be an output.
    """
    graph = model.graph.graph
    values = {name(value): value for value in _values(graph)}
    ends = {node.name: node for node in graph}
    for block in blocks:
        start, end = values[block.start], values[block.end]
        if ends[block.name].graph is not graph:
            continue
        if not _is_there(start, graph):
            raise ModelError(f"block '{block.name}' cannot go: what stays of it is gone already")
        _replace(values, end, start)
        for reader in [use.node for use in start.uses()]:
            if _is_idle(reader, start):
                _replace(values, reader.outputs[0], start)
        remove_dead(graph)
    return model


def _values(graph: ir.Graph) -> list[ir.Value]:
    made = [value for node in graph for value in node.outputs if value.name]
    return [*graph.inputs, *graph.initializers.values(), *made]


def _is_there(value: ir.Value, graph: ir.Graph) -> bool:
    producer = value.producer()
    return producer is None or producer.graph is graph


def _replace(values: dict[str, ir.Value], end: ir.Value, start: ir.Value) -> None:
    producer = end.producer()
    assert producer is not None
    bypass(producer, start)
    for label, value in values.items():
        if value is end:
            values[label] = start


def _is_idle(node: ir.Node, value: ir.Value) -> bool:
    """Whether `node` hands on `value` as it is, since the same op made it."""
    maker = value.producer()
    if maker is None or node.op_type != maker.op_type or node.op_type not in {"Relu", "Clip"}:
        return False
    limits = [[const(each) for each in n.inputs[1:]] for n in (node, maker)]
    return len(limits[0]) == len(limits[1]) and all(
        a is not None and b is not None and a == b for a, b in zip(*limits, strict=True)
    )
