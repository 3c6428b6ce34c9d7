"""A GRU or RNN cell as products and elementwise ops: one step, or a Scan over many.

Runtimes that have no integer kernel for a recurrent node have one for a product, and in a cell
the products are where the time goes: each step reads every weight once.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray

from edgebm.ir.edit import Attribute, add_const, main_graph, take_over
from edgebm.ir.recurrent import Y_H, Cell, Y
from edgebm.ir.recurrent import X as X_INDEX

F32 = NDArray[np.float32]
MARK = ".written_out."
"""Stands in the name of every node of a cell, behind the name of the recurrent node it was."""


@dataclass(slots=True)
class Sheet:
    """Nodes in the making, in order, all named after one cell."""

    cell: str
    graph: ir.Graph
    nodes: list[ir.Node] = field(default_factory=list)

    def write(
        self,
        op_type: str,
        args: Sequence[ir.Value | None],
        attributes: dict[str, Attribute] | None = None,
        *,
        label: str,
        domain: str = "",
    ) -> ir.Value:
        """Add a node of one output and return that."""
        node = ir.node(op_type, args, attributes, domain=domain, name=self._name(label))
        node.outputs[0].name = f"{node.name}_out"
        self.nodes.append(node)
        return node.outputs[0]

    def split(self, value: ir.Value, sizes: Sequence[int], *, label: str) -> tuple[ir.Value, ...]:
        """Cut `value` into pieces of `sizes` along its last axis."""
        lengths = self.constant(np.array(sizes, np.int64), label=f"{label}.sizes")
        node = ir.node(
            "Split", [value, lengths], {"axis": -1}, num_outputs=len(sizes), name=self._name(label)
        )
        for index, out in enumerate(node.outputs):
            out.name = f"{node.name}_{index}"
        self.nodes.append(node)
        return tuple(node.outputs)

    def constant(self, array: NDArray[Any], *, label: str) -> ir.Value:
        """A constant of the main graph: the bodies of loops see it too."""
        return add_const(self.graph, f"{self.cell}.{label}", array)

    def _name(self, label: str) -> str:
        return f"{self.cell}{MARK}{label}"


# Writes `x @ w.T + b` for a computed `x` [..., K], rows `part` of the weight "W" or "R" and a
# bias [N] or none: (sheet, x, weight, rows, bias) -> [..., N].
Product = Callable[[Sheet, ir.Value, str, slice, F32 | None], ir.Value]


def why_not_written_out(cell: Cell) -> str:
    """Why `cell` cannot be written out; empty if it can."""
    if cell.op == "LSTM":
        return "an LSTM is not written out: runtimes have a faster node for it"
    if cell.directions != 1:
        return "it has two directions; split it into two cells first"
    if not cell.is_standard:
        return "it clips, lays out its input by batch, or has activations of its own"
    if cell.lengths is not None:
        return "its sequences have lengths of their own"
    return ""


def write_out(cell: Cell, product: Product) -> None:
    """Replace a GRU or RNN node by its formulas; `product` writes each product with a weight.

    The products with the inputs of all steps are one; those with the hidden state stand in the
    body of a Scan, or in the graph itself where there is just one step.

    Args:
        cell: one that `why_not_written_out` has nothing against.
        product: writes a product.

    Source:
        The ONNX standard, operators GRU (both values of linear_before_reset) and RNN.
    """
    node, graph = cell.node, main_graph(cell.node)
    sheet = Sheet(node.name or node.op_type, graph)
    x = node.inputs[X_INDEX]
    assert x is not None
    parts = _inputs_of_steps(sheet, cell, x, product)
    single = x.shape is not None and x.shape[0] == 1
    initial = cell.initial_h or _zeros(sheet, cell, x)  # [1, N, H]
    if single:
        last = every = _step(sheet, cell, initial, parts, product)
    else:
        axis = sheet.constant(np.array([0], np.int64), label="direction_axis")
        first = sheet.write("Squeeze", [initial, axis], label="initial")
        last, every = _scan(sheet, cell, first, parts, product)
        last = sheet.write("Unsqueeze", [last, axis], label="last")
    axis = sheet.constant(np.array([1], np.int64), label="output_axis")
    every = sheet.write("Unsqueeze", [every, axis], label="every")
    graph.insert_before(node, sheet.nodes)
    for index, value in ((Y, every), (Y_H, last)):
        old = node.outputs[index] if index < len(node.outputs) else None
        if old is not None and (old.is_graph_output() or tuple(old.uses())):
            take_over(old, value)
    graph.remove(node, safe=True)


def _inputs_of_steps(
    sheet: Sheet, cell: Cell, x: ir.Value, product: Product
) -> tuple[ir.Value, ...]:
    """What the input adds in front of each nonlinearity, biases included, each [T, N, ..]."""
    rows = cell.gates * cell.hidden
    bias = None
    if cell.b is not None:
        ours, theirs = cell.b[0, :rows].copy(), cell.b[0, rows:].copy()
        if cell.resets_after:
            theirs[2 * cell.hidden :] = 0  # that of the candidate is inside the reset gate
        bias = ours + theirs
    whole = product(sheet, x, "W", slice(None), bias)
    if cell.op == "RNN":
        return (whole,)
    return sheet.split(whole, [2 * cell.hidden, cell.hidden], label="x.parts")


def _step(
    sheet: Sheet, cell: Cell, h: ir.Value, parts: Sequence[ir.Value], product: Product
) -> ir.Value:
    """The hidden state after one step, of the shape of `h`."""
    if cell.op == "RNN":
        both = sheet.write(
            "Add", [parts[0], product(sheet, h, "R", slice(None), None)], label="sum"
        )
        return sheet.write("Tanh", [both], label="h")
    units = cell.hidden
    gates, candidate = slice(0, 2 * units), slice(2 * units, 3 * units)
    both = sheet.write("Add", [parts[0], product(sheet, h, "R", gates, None)], label="gates.sum")
    opened = sheet.write("Sigmoid", [both], label="gates")
    update, reset = sheet.split(opened, [units, units], label="gates.parts")
    if cell.resets_after:
        bias = None if cell.b is None else cell.b[0, 5 * units :]
        past = sheet.write("Mul", [reset, product(sheet, h, "R", candidate, bias)], label="reset")
    else:
        kept = sheet.write("Mul", [reset, h], label="reset")
        past = product(sheet, kept, "R", candidate, None)
    both = sheet.write("Add", [parts[1], past], label="candidate.sum")
    fresh = sheet.write("Tanh", [both], label="candidate")
    # (1 - z) * n + z * h, with one product less
    change = sheet.write("Sub", [h, fresh], label="change")
    held = sheet.write("Mul", [update, change], label="held")
    return sheet.write("Add", [fresh, held], label="h")


def _scan(
    sheet: Sheet, cell: Cell, first: ir.Value, parts: Sequence[ir.Value], product: Product
) -> tuple[ir.Value, ir.Value]:
    """A Scan of the step over axis 0 of `parts`: the last state [N, H], and all [T, N, H]."""
    inner = Sheet(sheet.cell, sheet.graph)
    h = _input(f"{sheet.cell}.h_before")
    given = [_input(f"{sheet.cell}.x{index}") for index in range(len(parts))]
    after = _step(inner, cell, h, given, product)
    shown = inner.write("Identity", [after], label="shown")
    body = ir.Graph([h, *given], [after, shown], nodes=inner.nodes, name=f"{sheet.cell}.step")
    for value in body.outputs:
        value.type = ir.TensorType(ir.DataType.FLOAT)
    backwards = int(cell.direction == "reverse")
    node = ir.node(
        "Scan",
        [first, *parts],
        {
            "body": body,
            "num_scan_inputs": len(parts),
            "scan_input_directions": [backwards] * len(parts),
            "scan_output_directions": [backwards],
        },
        num_outputs=2,
        name=f"{sheet.cell}{MARK}steps",
    )
    last, every = node.outputs
    last.name, every.name = f"{node.name}_last", f"{node.name}_every"
    sheet.nodes.append(node)
    return last, every


def _input(label: str) -> ir.Value:
    """A float input of a loop's body, of a shape that the loop gives it."""
    return ir.val(label, dtype=ir.DataType.FLOAT)


def _zeros(sheet: Sheet, cell: Cell, x: ir.Value) -> ir.Value:
    """An initial state [1, N, H] of zeros for the batch of `x` [T, N, I]."""
    batch = None if x.shape is None else x.shape[1]
    if isinstance(batch, int):
        return sheet.constant(np.zeros((1, batch, cell.hidden), np.float32), label="zeros")
    shape = sheet.write("Shape", [x], {"start": 1, "end": 2}, label="batch")
    ends = [
        sheet.constant(np.array([size], np.int64), label=label)
        for size, label in ((1, "one"), (cell.hidden, "units"))
    ]
    whole = sheet.write("Concat", [ends[0], shape, ends[1]], {"axis": 0}, label="state_shape")
    zero = sheet.constant(np.zeros(1, np.float32), label="zero")
    return sheet.write("Expand", [zero, whole], label="zeros")
