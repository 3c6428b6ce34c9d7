"""Recurrent nodes on ONNX Runtime's integer kernels.

It has one node for the LSTM, `com.microsoft.DynamicQuantizeLSTM`, and none for the GRU: there a
cell is written out, and its products are `com.microsoft.DynamicQuantizeMatMul`. Both round their
inputs to 8 bits by the range they have at each call, so only weights need a decision.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import partial

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray

from edgebm.backends.dialects import EXACT, Grid
from edgebm.backends.written_out import F32, Sheet, why_not_written_out, write_out
from edgebm.ir.annotate import quant_of
from edgebm.ir.edit import add_const, input_at, main_graph, remove_dead
from edgebm.ir.model import Model
from edgebm.ir.recurrent import (
    INITIAL_C,
    INITIAL_H,
    LENGTHS,
    PEEPHOLES,
    B,
    Cell,
    R,
    W,
    X,
    cell_of,
)
from edgebm.ir.traits import RECURRENT
from edgebm.quant.params import QuantParams, quantize, with_bits

_DOMAIN = "com.microsoft"
# An LSTM with one scale for all rows of a weight is 7 % (512 units) to 13 % (128 units) faster
# than with a scale for each. Its weights' rounding noise may become that many dB louder for it.
_ALIKE_DB = 9.0


@dataclass(frozen=True, slots=True)
class IntegerCells:
    """A graph and what became of its recurrent nodes, by their names in the source.

    `cells` are those whose products are integer now, `reasons` says of each other one why it
    stays in float.
    """

    model: Model
    cells: tuple[str, ...]
    reasons: Mapping[str, str]


@dataclass(frozen=True, slots=True)
class _Weight:
    """Integers [G * H, K] with a scale of their own for each row, [G * H], or one for all, []."""

    integers: NDArray[np.int8]
    scale: F32


def fuse_cells(lowered: Model, *, grid: Grid = EXACT, written_out: bool = False) -> IntegerCells:
    """Give recurrent nodes whose weights carry a decision the integer kernels of ONNX Runtime.

    Args:
        lowered: the graph; it is not changed. W and R of a cell carry `QuantParams`: symmetric,
            one scale per row (`axis=1`) or one in all. Ranges of values are not used.
        grid: its `weight_bits` are what the CPU's kernels add without overflow.
        written_out: write GRU and RNN nodes out as integer products (a Scan, where there is
            more than one step). It pays for wide cells: those of 128 units are slower than the
            float node.

    Returns:
        The new graph, the nodes that became integers, and why the others did not.
    """
    out = lowered.clone()
    cells: list[str] = []
    reasons: dict[str, str] = {}
    for node in list(out.nodes(*RECURRENT)):
        label = node.name or node.op_type
        cell = cell_of(node)
        reason = _why_not(node, cell, written_out=written_out)
        if reason or cell is None:
            reasons[label] = reason
            continue
        weights = {"W": _weight(cell, W, grid), "R": _weight(cell, R, grid)}
        if cell.op == "LSTM":
            _fuse_lstm(cell, weights)
        else:
            write_out(cell, partial(_product, weights))
        cells.append(label)
    if cells:
        out.graph.opset_imports[_DOMAIN] = 1
        remove_dead(out.graph.graph)
    return IntegerCells(out, tuple(cells), reasons)


def _why_not(node: ir.Node, cell: Cell | None, *, written_out: bool) -> str:
    """Why the node stays in float; empty if it need not."""
    if cell is None:
        return "its weights are computed, not constants"
    if reason := _why_not_weights(cell):
        return reason
    if cell.op == "LSTM":
        by_batch = node.attributes.get_int("layout", 0) != 0
        return "its input has the batch first; DynamicQuantizeLSTM has time first" * by_batch
    if not written_out:
        return f"ONNX Runtime has no integer kernel for {cell.op}"
    return why_not_written_out(cell)


def _why_not_weights(cell: Cell) -> str:
    if cell.w.dtype != np.float32:
        return f"its weights are {cell.w.dtype}; the integer kernels read float32"
    for index in (W, R):
        decided = quant_of(cell.node.inputs[index])
        if decided is None:
            return "no decision was made on its weights"
        if not decided.signed or decided.axis not in (1, None):
            return "its weights are to have other integers than signed ones with a scale per row"
    return ""


def _weight(cell: Cell, index: int, grid: Grid) -> list[_Weight]:
    """The weight's integers by direction."""
    decided, array = quant_of(cell.node.inputs[index]), cell.w if index == W else cell.r
    assert decided is not None  # `_why_not` asked
    params = with_bits(decided, min(decided.bits, grid.weight_bits))
    if cell.op == "LSTM":
        params = _alike(params)
    integers = quantize(array, params).astype(np.int8)
    scale = params.scale
    if cell.op != "LSTM":
        scale = np.broadcast_to(scale, array.shape[1:2])  # its parts are products of their own
    return [_Weight(each, scale) for each in integers]


def _alike(params: QuantParams) -> QuantParams:
    """One scale for all rows where theirs are alike; else `params`."""
    scale = params.scale.astype(np.float64)
    top = scale.max()
    if top**2 > 10 ** (_ALIKE_DB / 10) * (scale**2).mean():
        return params
    return replace(
        params, scale=np.asarray(top, np.float32), zero_point=np.zeros((), np.int32), axis=None
    )


def _fuse_lstm(cell: Cell, weights: Mapping[str, list[_Weight]]) -> None:
    """Turn the node into `DynamicQuantizeLSTM` in place: outputs and attributes are the same."""
    node, graph, label = cell.node, main_graph(cell.node), cell.node.name or "LSTM"
    stored: dict[str, list[ir.Value]] = {}
    for part, each in weights.items():
        # It takes W as [D, I, 4H] and R as [D, H, 4H], with scales and zero points [D, 4H] or [D].
        matrix = np.stack([w.integers.T for w in each])
        scale = np.stack([w.scale for w in each])
        stored[part] = [
            add_const(graph, f"{label}.{part}.q", np.ascontiguousarray(matrix)),
            add_const(graph, f"{label}.{part}.scale", scale),
            add_const(graph, f"{label}.{part}.zero_point", np.zeros(scale.shape, np.int8)),
        ]
    args = [
        node.inputs[X], stored["W"][0], stored["R"][0], input_at(node, B),
        input_at(node, LENGTHS), input_at(node, INITIAL_H), input_at(node, INITIAL_C),
        input_at(node, PEEPHOLES), *stored["W"][1:], *stored["R"][1:],
    ]  # fmt: skip
    node.resize_inputs(len(args))
    for index, value in enumerate(args):
        node.replace_input_with(index, value)
    node.op_type, node.domain = "DynamicQuantizeLSTM", _DOMAIN
    node.attributes.pop("layout", None)


def _product(
    weights: Mapping[str, list[_Weight]],
    sheet: Sheet,
    x: ir.Value,
    part: str,
    rows: slice,
    bias: F32 | None,
) -> ir.Value:
    """Write `x @ w[rows].T + bias` with integers; `x` is rounded by its range at each call."""
    (weight,) = weights[part]
    columns = np.ascontiguousarray(weight.integers[rows].T)
    label = "x" if part == "W" else f"h{rows.start or 0}"
    args: list[ir.Value | None] = [
        x,
        sheet.constant(columns, label=f"{label}.weight.q"),
        sheet.constant(np.ascontiguousarray(weight.scale[rows]), label=f"{label}.weight.scale"),
    ]
    if bias is not None:
        args += [None, sheet.constant(np.ascontiguousarray(bias), label=f"{label}.bias")]
    return sheet.write("DynamicQuantizeMatMul", args, label=label, domain=_DOMAIN)
