"""Loops over a sequence whose body is one step of a recurrent layer become that layer.

TensorFlow writes a Keras GRU, an RNN, and what its converters do not know, as a `Loop` that
gathers one step, computes a cell, and stacks the states.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import onnx_ir as ir

from edgebm.errors import EdgebmError
from edgebm.ir.check import WHY_NO_LAYER
from edgebm.ir.dims import Known, propagate
from edgebm.ir.edit import name, remove_dead, take_over
from edgebm.ir.loop_body import Body, NoStep, read_body
from edgebm.ir.model import Model
from edgebm.ir.simplify import is_zeros
from edgebm.ir.step_chains import Chain, find_chains
from edgebm.ir.write_steps import Writer, attributes_of, weights_of

_MASK = "a mask (Masking, Embedding(mask_zero=True)) cannot be kept: build the model without it"


def roll_loops(model: Model, canonical: Callable[[Model], Model]) -> int:
    """Replace loops by LSTM, GRU and RNN nodes, in place; return how many were.

    Shapes must be inferred before. A Loop that stays has the reason in `node.meta[WHY_NO_LAYER]`.

    Args:
        model: its constants folded, so that weights are constants.
        canonical: brings the body, as a model of its own, into canonical form.
    """
    loops = list(model.nodes("Loop"))
    if not loops:
        return 0
    sizes, changed = _sizes(model), 0
    for loop in loops:
        try:
            body = read_body(loop, sizes)
            chain = _cell(body, canonical(body.model))
            _check_batch(body)
        except (NoStep, EdgebmError) as cause:
            loop.meta[WHY_NO_LAYER] = str(cause)
            continue
        _write(model.graph.graph, loop, body, chain)
        changed += 1
    if changed:
        model.graph.graph.sort()
        remove_dead(model.graph.graph)
    return changed


def _sizes(model: Model) -> Known:
    known: Known = {}
    for node in model.graph.graph:
        found = propagate(node, known) if node.outputs else None
        if found is not None:
            known[node.outputs[0]] = found
    return known


def _cell(body: Body, step: Model) -> Chain:
    """The cell that the step is, and nothing else."""
    for op in ("LSTM", "GRU", "RNN"):
        for chain in find_chains(step, op):
            if _is_all(body, step, chain):
                return chain
    ops = sorted({node.op_type for node in step.graph.graph})
    if {"Where", "Not"} & set(ops):
        raise NoStep(f"its steps choose between values; {_MASK}")
    raise NoStep(f"its body is no step of an LSTM, GRU or RNN ({', '.join(ops)})")


def _is_all(body: Body, step: Model, chain: Chain) -> bool:
    if len(chain.steps) != 1 or chain.h is None:
        return False
    parts = [chain.h, *([] if chain.c is None else [chain.c]), *chain.xs[0]]
    if any(not part.is_whole or not part.value.is_graph_input() for part in parts):
        return False
    labels = [name(part.value) for part in parts]
    states = labels[: 1 if chain.c is None else 2]
    made = {name(chain.steps[0].out): states[0]}
    if chain.steps[0].c_out is not None and chain.c is not None:
        made[name(chain.steps[0].c_out)] = states[1]
    # Every state comes from its own place, every output is a state, and nothing is left over.
    return (
        set(labels) == {v.name for v in step.graph.graph.inputs}
        and all(label in body.sequences for label in labels[len(states) :])
        and all(made.get(body.next_state[label]) == label for label in states)
        and set(body.next_state) == set(states)
        and all(label == name(chain.steps[0].out) for label in body.stacked.values())
    )


def _check_batch(body: Body) -> None:
    """A Loop lets a state of one sample spread over the batch; the layers do not."""
    sizes = [seq.shape[1] for seq in body.sequences.values() if seq.shape is not None]
    for start in body.initial.values():
        if not is_zeros(start) and (start.shape is None or start.shape[0] not in sizes):
            raise NoStep(f"the state '{start.name}' may have another batch size than the sequence")


def _write(graph: ir.Graph, loop: ir.Node, body: Body, chain: Chain) -> None:
    label = _label(graph, loop, chain.op)
    writer = Writer(graph, label, {})
    xs = [body.sequences[name(part.value)] for part in chain.xs[0]]
    x = xs[0] if len(xs) == 1 else writer.add("Concat", xs, axis=2)
    first, second = (writer.const(k, np.array([n])) for k, n in (("first", 0), ("second", 1)))
    states = [part for part in (chain.h, chain.c) if part is not None]
    starts = [
        None if is_zeros(start) else writer.add("Unsqueeze", [start, first])
        for start in (body.initial[name(part.value)] for part in states)
    ]
    args = [x, *weights_of(writer, chain), None, *starts]
    while args[-1] is None:
        args.pop()
    cell = writer.node(chain.op, args, attributes_of(chain), 1 + len(states))
    cell.name = label
    ends = {name(part.value): out for part, out in zip(states, cell.outputs[1:], strict=True)}
    for index, state in body.final.items():
        _replace(writer, loop.outputs[index], "Squeeze", [ends[state], first])
    for index in body.stacked:
        _replace(writer, loop.outputs[index], "Squeeze", [cell.outputs[0], second])
    for index, value in body.unchanged.items():
        _replace(writer, loop.outputs[index], "Identity", [value])
    graph.remove(loop, safe=True)
    for node in loop.attributes["body"].as_graph():  # else they go on reading outer values
        for index in range(len(node.inputs)):
            node.replace_input_with(index, None)


def _replace(writer: Writer, out: ir.Value, op_type: str, args: Sequence[ir.Value]) -> None:
    if tuple(out.uses()) or out.is_graph_output():
        take_over(out, writer.add(op_type, args))


def _label(graph: ir.Graph, loop: ir.Node, op: str) -> str:
    """`gru_1/GRU` for a loop called `model/gru_1/while_loop`."""
    scope = (loop.name or "").rpartition("/")[0]
    wanted = f"{scope}/{op}" if scope else op
    taken, number, label = {node.name for node in graph}, 0, wanted
    while label in taken:
        number += 1
        label = f"{wanted}_{number}"
    return label
