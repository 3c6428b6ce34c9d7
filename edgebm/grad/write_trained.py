"""What was trained with rounding in place, back in the float graph and the decisions on it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray

from edgebm.grad.qat import Trained
from edgebm.grad.simulated import RoundedPoint, RoundedWeight, Simulated
from edgebm.ir.annotate import (
    cell_params_of,
    clear_shift,
    quant_of,
    range_of,
    set_cell_params,
    set_quant,
)
from edgebm.ir.edit import const, input_at, name, set_const
from edgebm.ir.model import Model
from edgebm.ir.traits import RECURRENT
from edgebm.quant.params import Range, range_params

_Reader = tuple[ir.Node, int]  # a node, and the number of its input


def write(found: Trained, graph: Simulated, model: Model) -> None:
    """Put trained constants and steps into `model`, in place.

    Weights stay floats near their grid; the decisions on them, and the ranges of values, have the
    trained steps, so that lowering gives what was trained, but for what lies half way between two
    integers. Biases are those of the lowered graph: what had been taken out of them is so for
    good.

    Args:
        found: what came of the training.
        graph: what was trained.
        model: the annotated graph that `graph` was made from.
    """
    nodes = {node.name or "?": node for node in model.nodes()}
    cells = {node: cell_params_of(node) for node in model.nodes(*RECURRENT)}
    _write_constants(found, nodes)
    for node, params in cells.items():
        if params is not None:
            set_cell_params(node, params)
    for weight in graph.weights:
        for reader in weight.readers if weight.params is not None else ():
            _set_grid(nodes[reader], weight, found.weight_steps[weight.label])
            clear_shift(nodes[reader].outputs[0])
    values = {name(v): v for node in nodes.values() for v in node.outputs}
    values |= {name(v): v for v in model.graph.graph.inputs}
    today = {p.source: range_of(values[p.source]) for p in graph.points if p.source is not None}
    for point in graph.points:
        span = None if point.source is None else today[point.source]
        if point.source is not None and span is not None:
            fresh = _range(point, span, found.point_steps[point.source])
            set_quant(values[point.source], fresh)


def _write_constants(found: Trained, nodes: Mapping[str, ir.Node]) -> None:
    """Replace what has changed; readers of one constant that is still one go on sharing it."""
    groups: dict[tuple[str, str], list[_Reader]] = {}
    arrays: dict[str, NDArray[Any]] = {}
    for (reader, index), (label, array) in found.constants.items():
        node = nodes.get(reader)
        if node is None:
            continue
        old = input_at(node, index)
        before = const(old)
        if old is not None and (before is None or before.tobytes() == array.tobytes()):
            continue
        groups.setdefault((label, "" if old is None else name(old)), []).append((node, index))
        arrays[label] = array
    for (label, _), readers in groups.items():
        _replace(readers, arrays[label])


def _replace(readers: Sequence[_Reader], array: NDArray[Any]) -> None:
    """Give all `readers` of one constant a new one, with what was decided on the old one."""
    (first, index), *others = readers
    decided = quant_of(input_at(first, index))
    for node, at in others:
        node.replace_input_with(at, None)  # so that the old array goes, and its name stays
    fresh = set_const(first, index, array, suffix="trained")
    for node, at in others:
        node.replace_input_with(at, fresh)
    if decided is not None:
        set_quant(fresh, decided)


def _set_grid(node: ir.Node, weight: RoundedWeight, step: NDArray[np.float32]) -> None:
    """The decision on a weight whose lowered grid has come to have this step."""
    value, lowered = node.inputs[1], weight.params
    decided = quant_of(value)
    assert value is not None
    assert decided is not None
    assert lowered is not None
    scale = step.reshape(decided.scale.shape) * np.float32(lowered.qmax / decided.qmax)
    set_quant(value, replace(decided, scale=np.asarray(scale, np.float32)))


def _range(point: RoundedPoint, today: Range, step: float) -> Range:
    """The range whose grid has the zero point of `point`, and this step."""
    for bits in range(8, 1, -1):
        params = range_params(today, bits=bits, signed=point.low < 0)
        if params.scale == point.step:
            return Range(step * (params.qmin - point.zero), step * (params.qmax - point.zero))
    raise AssertionError(f"no grid of {point.source} has the step {point.step}")
