"""Recurrent cells with the rounding that their integer kernel does, in float."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx_ir as ir

from edgebm.ir.annotate import cell_params_of
from edgebm.ir.edit import add_const, add_node, free_name, main_graph, set_const
from edgebm.ir.model import Model
from edgebm.ir.recurrent import Cell, R, W, X, cell_of
from edgebm.ir.traits import RECURRENT
from edgebm.quant.params import fake_quantize
from edgebm.quant.recurrent import CellParams


def with_rounded_cells(lowered: Model) -> Model:
    """A copy in which decided cells have rounded weights and read rounded values.

    The state is not rounded from step to step: an ONNX node cannot say that. What an integer
    kernel loses is a little more.

    Args:
        lowered: a graph whose recurrent nodes may carry `CellParams`.

    Returns:
        The copy, without decisions on its cells; `lowered` itself where there are none.
    """
    if all(cell_params_of(node) is None for node in lowered.nodes(*RECURRENT)):
        return lowered
    out = lowered.clone()
    for node in list(out.nodes(*RECURRENT)):
        cell, params = cell_of(node), cell_params_of(node)
        if cell is not None and params is not None:
            _round(cell, params)
    return out


def _round(cell: Cell, params: CellParams) -> None:
    node, stretch = cell.node, params.stretch
    w = fake_quantize(cell.w[0] * stretch, params.weights) / stretch
    r = fake_quantize(cell.r[0], params.weights)
    for index, array in ((W, w), (R, r)):
        set_const(node, index, array[None].astype(np.float32), suffix="rounded")
    x = node.inputs[X]
    assert x is not None
    grid = params.data
    scale, zero = grid.scale, grid.zero_point.astype(np.uint8)
    steps: list[tuple[str, list[Any]]] = [
        ("Sub", [params.offset]),
        ("Div", [stretch]),
        ("QuantizeLinear", [scale, zero]),
        ("DequantizeLinear", [scale, zero]),
        ("Mul", [stretch]),
        ("Add", [params.offset]),
    ]
    graph, value = main_graph(node), x
    for op, arrays in steps:
        label = f"{node.name}.{op.lower()}"
        constants = [add_const(graph, f"{label}_{i}", array) for i, array in enumerate(arrays)]
        value = add_node(node, op, [value, *constants], label=free_name(graph, label))
        value.type, value.shape = x.type, x.shape
        if op == "QuantizeLinear":
            value.type = ir.TensorType(ir.DataType.UINT8)
    node.replace_input_with(X, value)
