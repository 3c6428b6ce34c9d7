"""Bidirectional LSTM, GRU and RNN nodes as one node for each direction."""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar, Literal

import numpy as np
import onnx_ir as ir

from edgebm.ir.edit import add_const, const, free_name, input_at, main_graph, name, replace_uses
from edgebm.ir.model import Model
from edgebm.ir.recurrent import (
    INITIAL_C,
    INITIAL_H,
    PEEPHOLES,
    STANDARD,
    Y_C,
    Y_H,
    B,
    Cell,
    R,
    W,
    Y,
    cell_of,
)
from edgebm.ir.recurrent_forms import flattened
from edgebm.ir.traits import RECURRENT
from edgebm.passes.base import Context, step

_DIRECTIONS = ("forward", "reverse")
_TWO = 2


@step
class SplitDirections:
    """Each bidirectional recurrent node becomes `NAME.forward` and `NAME.reverse`.

    The function of the model is unchanged. Runtimes have integer kernels for one direction only
    (OpenVINO's `LSTMSequence` and `GRUSequence` in INT8). A node whose weights are computed at
    run time stays, and its reason is in the report.

    Source:
        Schuster & Paliwal 1997, Bidirectional recurrent neural networks, section III: the
        states of one direction never enter the other.
    """

    kind: Literal["split_directions"] = "split_directions"
    needs_samples: ClassVar[bool] = False

    def __call__(self, model: Model, ctx: Context, /) -> Model:
        for node in list(model.nodes(*RECURRENT)):
            if node.attributes.get_string("direction", "forward") != "bidirectional":
                continue
            cell, reason = _splittable(node)
            if ctx.is_ignored(node.name or "", node.op_type):
                reason = "it is on the ignored list"
            if cell is None or reason:
                ctx.skip(self, node.name, reason)
            else:
                _split(cell)
        return model


def _splittable(node: ir.Node) -> tuple[Cell | None, str]:
    cell = cell_of(node)
    if cell is None:
        return None, "its weights are computed at run time"
    peepholes = input_at(node, PEEPHOLES) if node.op_type == "LSTM" else None
    if peepholes is not None and const(peepholes) is None:
        return None, "its peephole weights are computed at run time"
    if {"activation_alpha", "activation_beta"} & set(node.attributes):
        return None, "its activations have parameters, listed for both directions as one"
    return cell, ""


def _split(cell: Cell) -> None:
    node, graph = cell.node, main_graph(cell.node)
    states = {
        index: _halves(node, index)
        for index in (INITIAL_H, INITIAL_C)
        if input_at(node, index) is not None
    }
    sides = [_side(cell, side, [states.get(i) for i in (INITIAL_H, INITIAL_C)]) for side in (0, 1)]
    _join_flat(node, sides)
    for index, axis in ((Y, 1), (Y_H, 0), (Y_C, 0)):
        if index < len(node.outputs) and _is_read(node.outputs[index]):
            _join(node, sides, index, axis)
    graph.remove(node, safe=True)


def _side(cell: Cell, side: int, states: Sequence[Sequence[ir.Value] | None]) -> ir.Node:
    """The node of one direction, in front of the old one."""
    node, graph = cell.node, main_graph(cell.node)
    label = f"{node.name}.{_DIRECTIONS[side]}"
    args = list(node.inputs)
    for index in (W, R, B, PEEPHOLES):
        value = input_at(node, index)
        array = const(value)
        if value is not None and array is not None:
            half = np.ascontiguousarray(array[side : side + 1])
            args[index] = add_const(graph, f"{value.name}.{_DIRECTIONS[side]}", half)
    for index, halves in zip((INITIAL_H, INITIAL_C), states, strict=True):
        if halves is not None:
            args[index] = halves[side]
    attributes = dict(node.attributes)
    named = node.attributes.get_strings("activations", [])
    if named:
        count = len(STANDARD[node.op_type])
        half_names = list(named)[side * count : (side + 1) * count]
        attributes["activations"] = ir.AttrStrings("activations", half_names)
    attributes["direction"] = ir.AttrString("direction", _DIRECTIONS[side])
    fresh = ir.Node("", node.op_type, args, attributes.values(), num_outputs=len(node.outputs))
    fresh.name = label
    for index, (old, new) in enumerate(zip(node.outputs, fresh.outputs, strict=True)):
        new.name = free_name(graph, f"{label}_out{index}")
        new.type, new.shape = old.type, _with(old.shape, 1 if index == Y else 0, 1)
    graph.insert_before(node, fresh)
    return fresh


def _halves(node: ir.Node, index: int) -> list[ir.Value]:
    """An initial state [2, B, H] as one [1, B, H] for each direction."""
    graph, value = main_graph(node), node.inputs[index]
    assert value is not None
    array = const(value)
    if array is not None:
        return [
            add_const(graph, f"{name(value)}.{side}", np.ascontiguousarray(half))
            for side, half in zip(_DIRECTIONS, np.split(array, _TWO), strict=True)
        ]
    producer = value.producer()
    if producer is not None and producer.op_type == "Concat" and len(producer.inputs) == _TWO:
        pieces = [piece for piece in producer.inputs if piece is not None]
        if all(piece.shape is not None and piece.shape[0] == 1 for piece in pieces):
            return pieces
    label = f"{node.name}.{name(value)}"
    sizes = add_const(graph, f"{label}.sizes", np.ones(_TWO, np.int64))
    split = ir.node("Split", [value, sizes], {"axis": 0}, num_outputs=_TWO)
    split.name = label
    for side, piece in zip(_DIRECTIONS, split.outputs, strict=True):
        piece.name = free_name(graph, f"{name(value)}.{side}")
        piece.type, piece.shape = value.type, _with(value.shape, 0, 1)
    graph.insert_before(node, split)
    return list(split.outputs)


def _join(node: ir.Node, sides: Sequence[ir.Node], index: int, axis: int) -> None:
    old = node.outputs[index]
    joined = ir.node("Concat", [side.outputs[index] for side in sides], {"axis": axis})
    joined.name = f"{node.name}.join{index}"
    _take_over(node, old, joined)


def _join_flat(node: ir.Node, sides: Sequence[ir.Node]) -> None:
    """Where only [T, B, 2 * H] is read of Y, join the directions in that form: no transpose."""
    last = flattened(node)
    if last is None:
        return
    graph, axis = main_graph(node), add_const(main_graph(node), f"{node.name}.axis", np.array([1]))
    flat = []
    for side in sides:
        squeeze = ir.node("Squeeze", [side.outputs[Y], axis])
        squeeze.name = f"{side.name}.flat"
        out, y = squeeze.outputs[0], side.outputs[Y]
        out.name = free_name(graph, f"{side.name}_flat")
        out.type = y.type
        out.shape = None if y.shape is None else ir.Shape([y.shape[0], *y.shape[2:]])
        graph.insert_before(node, squeeze)
        flat.append(out)
    joined = ir.node("Concat", flat, {"axis": 2})
    joined.name = f"{node.name}.join{Y}"
    transpose = last.inputs[0].producer() if last.inputs[0] is not None else None
    _take_over(node, last.outputs[0], joined)
    graph.remove(last, safe=True)
    assert transpose is not None
    graph.remove(transpose, safe=True)


def _take_over(before: ir.Node, old: ir.Value, joined: ir.Node) -> None:
    """Put `joined` in front of `before`; its output gets the readers and the name of `old`."""
    fresh, label = joined.outputs[0], old.name
    fresh.type, fresh.shape = old.type, old.shape
    main_graph(before).insert_before(before, joined)
    replace_uses(old, fresh)
    old.name = None
    fresh.name = label


def _is_read(value: ir.Value) -> bool:
    return value.is_graph_output() or bool(tuple(value.uses()))


def _with(shape: ir.Shape | None, axis: int, size: int) -> ir.Shape | None:
    if shape is None:
        return None
    return ir.Shape([size if i == axis else dim for i, dim in enumerate(shape)])
