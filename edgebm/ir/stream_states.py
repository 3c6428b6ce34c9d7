"""The states of recurrent nodes as inputs and outputs of the model."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import onnx_ir as ir

from edgebm.ir.edit import Array, const, free_name, input_at, main_graph, name
from edgebm.ir.model import Model
from edgebm.ir.recurrent import INITIAL_C, INITIAL_H, LENGTHS, Y_C, Y_H, X, cell_of
from edgebm.ir.shapes import static_shape
from edgebm.ir.states import StatePair, moved_from
from edgebm.ir.time_axis import Traced


@dataclass(frozen=True, slots=True)
class Made:
    """What was found on the way: new pairs by input, initial values, and faults."""

    pairs: dict[str, StatePair]
    initial: dict[str, Array]
    faults: list[str]


def carry_states(
    work: Model,
    node: ir.Node,
    traced: Traced | None,
    kept: Mapping[str, StatePair],
    made: Made,
) -> None:
    """Make the states of a node inputs and outputs."""
    twin = node
    if traced is not None:
        twin = next(each for each in traced.sized.nodes() if each.name == node.name)
    _drop_lengths(node, twin, traced, made)
    slots = [("h0", INITIAL_H, Y_H), *([("c0", INITIAL_C, Y_C)] if node.op_type == "LSTM" else [])]
    for slot, index, out in slots:
        start = input_at(node, index)
        roots = moved_from(start)
        if roots and all(root.is_graph_input() for root in roots):
            _keep(work, node, out, roots, kept, made)
            continue
        value = const(input_at(twin, index))
        if start is not None and value is None:
            made.faults.append(
                f"{node.name} ({node.op_type}): its initial state '{start.name}' is computed from "
                "the inputs, so it would begin anew at each step: export it as an input"
            )
            continue
        _add_state(work, node, (slot, index, out), value, made, _batch(node, twin, traced))


def _drop_lengths(node: ir.Node, twin: ir.Node, traced: Traced | None, made: Made) -> None:
    lengths = input_at(node, LENGTHS)
    if lengths is None:
        return
    steps = 1 if traced is None else traced.walk.steps
    known = const(input_at(twin, LENGTHS))
    if known is None or not (known == steps).all():
        made.faults.append(
            f"{node.name} ({node.op_type}): takes the lengths of its sequences from "
            f"'{lengths.name}', and a stream has no length: export it for sequences of one length"
        )
    else:
        node.replace_input_with(LENGTHS, None)


def _keep(
    work: Model,
    node: ir.Node,
    out: int,
    roots: set[ir.Value],
    kept: Mapping[str, StatePair],
    made: Made,
) -> None:
    """A state that is an input already: its output is there, or is added where it is plain."""
    if all(name(root) in kept for root in roots):
        return
    start = node.inputs[INITIAL_H if out == Y_H else INITIAL_C]
    assert start is not None
    if not start.is_graph_input():
        made.faults.append(
            f"{node.name} ({node.op_type}): begins with parts of "
            f"{', '.join(repr(name(r)) for r in roots)}, but no output holds where it ends: "
            "export the last state too, or leave the initial one out"
        )
        return
    label = name(start)
    made.pairs[label] = StatePair(
        label, _last_state(work, node, out, label), "made by --streaming"
    )


def _add_state(
    work: Model,
    node: ir.Node,
    place: tuple[str, int, int],
    value: Array | None,
    made: Made,
    batch: int | str | None,
) -> None:
    slot, index, out = place
    graph = work.graph.graph
    label = free_name(graph, f"{(node.name or node.op_type).strip('/').replace('/', '.')}.{slot}")
    cell = cell_of(node)
    if cell is None:
        return  # said before
    if value is not None and (value != value[:, :1]).any():
        made.faults.append(
            f"{node.name} ({node.op_type}): its initial state differs from sample to sample of "
            "the batch: export it as an input"
        )
        return
    weights = node.inputs[1]
    assert weights is not None
    fresh = ir.val(label, shape=ir.Shape([1, batch, cell.hidden]), dtype=weights.dtype)
    graph.inputs.append(fresh)
    if index >= len(node.inputs):
        node.resize_inputs(index + 1)
    node.replace_input_with(index, fresh)
    if value is not None and value.any():
        made.initial[label] = np.array(value[:, :1])
    output = _last_state(work, node, out, label)
    made.pairs[label] = StatePair(label, output, "made by --streaming")


def _last_state(work: Model, node: ir.Node, out: int, label: str) -> str:
    """The name of the output that holds where a node ends; a new one unless there is one."""
    graph = work.graph.graph
    if out >= len(node.outputs):
        node.resize_outputs(out + 1)
    value = node.outputs[out]
    if value.is_graph_output():
        return name(value)
    # Readers may know the value by its name, so that a copy goes out.
    hand_on = ir.node("Identity", [value])
    end = hand_on.outputs[0]
    main_graph(node).insert_after(node, hand_on)
    if not value.name:
        value.name = free_name(graph, f"{label}.last")
    end.name = free_name(graph, f"{label}.next")
    source = node.inputs[INITIAL_H if out == Y_H else INITIAL_C]
    assert source is not None
    assert source.dtype is not None
    end.dtype, end.shape = source.dtype, source.shape
    graph.outputs.append(end)
    return name(end)


def _batch(node: ir.Node, twin: ir.Node, traced: Traced | None) -> int | str | None:
    """The batch axis of the node's input, by the name that inputs have for it."""
    value = node.inputs[X]
    dim = None if value is None or value.shape is None else value.shape[1]
    if isinstance(dim, int):
        return dim
    if traced is None:
        return None if dim is None else dim.value
    shape = static_shape(twin.inputs[X])
    known = {size: label for label, size in traced.sizes.items()}
    return None if shape is None else known.get(shape[1], shape[1])
