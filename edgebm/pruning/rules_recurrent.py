"""Rule of LSTM, GRU and RNN: a unit is a row of every gate and a column of R."""

from __future__ import annotations

import numpy as np
import onnx_ir as ir

from edgebm.ir.edit import const, input_at
from edgebm.ir.recurrent import GATES, INITIAL_C, INITIAL_H, PEEPHOLES, B, R, W, X
from edgebm.pruning.rules_axes import Rule
from edgebm.pruning.trace import Trace


def _recurrent(node: ir.Node, trace: Trace) -> None:
    """One number for both directions: they are equally wide, so unit i is number i of each."""
    value, w, r = node.inputs[X], node.inputs[W], node.inputs[R]
    assert value is not None
    assert w is not None
    assert r is not None
    outs = [out for out in node.outputs if out.uses() or out.is_graph_output()]
    if const(w) is None or const(r) is None or any(trace.rank(out) < 3 for out in outs):
        trace.freeze_node(node, "its weights are computed, or its axes are not known")
        return
    if node.attributes.get_int("layout", 0):
        trace.freeze_node(node, "it has its batch axis first")
        return
    trace.join(node, (value, 2), (w, 2))
    trace.read(node, (w, 2), (value, 2))
    trace.reads.add((r, 2))
    for out in outs:
        last = trace.rank(out) - 1
        trace.join(node, (out, last), (r, 2))
        trace.join(node, (out, last - 1), (value, 1))
        trace.freeze(node, [(out, last - 2)], "both directions stay")
        trace.make(node, (out, last))
        if last == 3:
            trace.join(node, (out, 0), (value, 0))
    _states(node, trace, value, r)
    _rows(node, trace, r)


def _states(node: ir.Node, trace: Trace, value: ir.Value, r: ir.Value) -> None:
    """States that are given [directions, batch, hidden]."""
    for state in (input_at(node, INITIAL_H), input_at(node, INITIAL_C)):
        if state is None:
            continue
        if state.is_graph_input():
            trace.freeze(node, [(r, 2)], f"its state is the model input '{state.name}'")
        trace.join(node, (state, 2), (r, 2))
        if not trace.is_one(state, 1):
            trace.join(node, (state, 1), (value, 1))


def _rows(node: ir.Node, trace: Trace, r: ir.Value) -> None:
    """Rows of W, R and the biases are stacked gate by gate."""
    hidden, gates = trace.of(r, 2), len(GATES[node.op_type])
    if hidden is None:
        return
    for index, times in ((W, gates), (R, gates), (B, 2 * gates), (PEEPHOLES, 3)):
        stacked = input_at(node, index)
        if stacked is not None:
            trace.tie(node, trace.of(stacked, 1), np.tile(hidden, times))


RULES: dict[str, Rule] = dict.fromkeys(GATES, _recurrent)
