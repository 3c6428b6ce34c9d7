"""LSTM, GRU and RNN nodes of all opsets and exporters, brought to one form."""

from __future__ import annotations

import numpy as np
import onnx_ir as ir

from edgebm.ir.edit import add_node, const, input_at, main_graph, sole_user
from edgebm.ir.model import Model
from edgebm.ir.recurrent import INITIAL_C, INITIAL_H, LENGTHS, STANDARD, Y_C, Y_H, R, X, Y
from edgebm.ir.rewrite import constant, put, swap_output
from edgebm.ir.simplify import spread
from edgebm.ir.traits import RECURRENT

_BATCH_FIRST = [1, 0, 2]


def plain_recurrent(model: Model) -> int:
    """Bring every recurrent node to its plain form, in place; return how many were changed.

    - `layout=1` (batch first) becomes 0 between transposes: ONNX Runtime and OpenVINO know only 0
    - lengths that are all the length of the sequence are left out, and so are attributes that
      say what is the default: the usual activations, `output_sequence` of old files
    - `hidden_size` is what R says
    - Y of one direction that is transposed and reshaped to lose the axis of directions is squeezed
    """
    return sum(_plain(node) for node in list(model.nodes(*RECURRENT)))


def _plain(node: ir.Node) -> bool:
    # Every rewrite runs: the order of an `or` would hide some behind others.
    done = [
        _time_first(node), _without_lengths(node), _without_defaults(node), _sized(node),
        _squeezed(node),
    ]  # fmt: skip
    return any(done)


def _time_first(node: ir.Node) -> bool:
    if node.attributes.get_int("layout", 0) != 1:
        return False
    node.attributes.pop("layout")
    for index in (X, INITIAL_H, INITIAL_C):
        value = input_at(node, index)
        if value is not None:
            turned = add_node(node, "Transpose", [value], {"perm": _BATCH_FIRST})
            turned.type = value.type
            node.replace_input_with(index, turned)
    # [T, D, B, H] to [B, T, D, H], and [D, B, H] to [B, D, H].
    for index, order in ((Y, [2, 0, 1, 3]), (Y_H, _BATCH_FIRST), (Y_C, _BATCH_FIRST)):
        if index < len(node.outputs) and node.outputs[index].name != "":
            swap_output(node, "Transpose", [], {"perm": order}, index=index)
    return True


def _without_lengths(node: ir.Node) -> bool:
    lengths, x = input_at(node, LENGTHS), node.inputs[X]
    if lengths is None or x is None or x.shape is None or spread(lengths) != x.shape[0]:
        return False
    node.replace_input_with(LENGTHS, None)
    return True


def _without_defaults(node: ir.Node) -> bool:
    attributes, before = node.attributes, len(node.attributes)
    # Of opset 1, and left behind by some converters in newer files: Y is there if it is read.
    attributes.pop("output_sequence", None)
    named = attributes.get_strings("activations", [])
    directions = 2 if attributes.get_string("direction", "forward") == "bidirectional" else 1
    if [name.lower() for name in named] == STANDARD[node.op_type] * directions:
        for key in ("activations", "activation_alpha", "activation_beta"):
            attributes.pop(key, None)
    for key in ("layout", "input_forget"):
        if attributes.get_int(key, 1) == 0:
            attributes.pop(key)
    return len(attributes) != before


def _sized(node: ir.Node) -> bool:
    r = node.inputs[R]
    if r is None or r.shape is None or len(r.shape) != 3 or not isinstance(r.shape[2], int):
        return False
    if node.attributes.get_int("hidden_size", 0) == r.shape[2]:
        return False
    put(node, "hidden_size", r.shape[2])
    return True


def _squeezed(node: ir.Node) -> bool:
    """[T, 1, B, H] transposed and reshaped to [T, B, H] is a Squeeze."""
    y, last = node.outputs[Y], flattened(node)
    if last is None or y.shape is None or len(y.shape) != 4 or y.shape[1] != 1:
        return False
    turn = sole_user(y)
    last.op_type = "Squeeze"
    last.attributes.clear()
    last.replace_input_with(0, y)
    last.replace_input_with(1, constant(last, np.array([1])))
    if turn is not None:
        main_graph(node).remove(turn, safe=True)
    return True


def flattened(node: ir.Node) -> ir.Node | None:
    """The Reshape that makes Y [T, B, D * H], if Y is read for that alone, behind a Transpose."""
    turn = sole_user(node.outputs[Y])
    if turn is None or turn.op_type != "Transpose":
        return None
    last = sole_user(turn.outputs[0])
    if list(turn.attributes.get_ints("perm", [])) != [0, 2, 1, 3] or last is None:
        return None
    y, out = turn.outputs[0].shape, last.outputs[0].shape
    if last.op_type != "Reshape" or y is None or out is None or len(out) != 3:
        return None
    target = const(last.inputs[1])
    if target is None:
        return None
    # The first two axes stay: written as 0, "copy", or as their own sizes.
    kept = all(target[axis] == 0 or target[axis] == y[axis] for axis in (0, 1))
    return last if kept and target[2] != 0 else None
