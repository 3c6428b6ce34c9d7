"""Decisions passes leave on the graph for the backend, in one typed place.

A weight carries `QuantParams`, an activation a `Range`: which integers cover that range
(signed, unsigned, with or without zero point) is the dialect's affair. A value may also carry
`ChannelMoments` and its `Extent`, which are knowledge and no decision, and a layer's
output the shift of its mean that a quantized layer takes out of its bias. Beside its
`QuantParams` a weight may carry the integers that were learned for it on one grid. The weight R
of a recurrent cell carries `CellParams`, which lay out the integers of the whole cell. All live
in `Value.meta`: copied by `clone()`, not written into an ONNX file. No other module reads or
writes these keys.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray

from edgebm.ir.model import Model
from edgebm.ir.traits import MOVES, RECURRENT
from edgebm.quant.params import QuantParams, Range
from edgebm.quant.recurrent import CellParams

_QUANT = "edgebm.quant"
_CELL = "edgebm.cell"
_MOMENTS = "edgebm.moments"
_SHIFT = "edgebm.shift"
_ROUNDED = "edgebm.rounded"
_THROUGH = MOVES | {"QuantizeLinear", "DequantizeLinear", "Identity"}
_EXTENT = "edgebm.extent"
_R = 2  # the input of a recurrent node that holds R


@dataclass(frozen=True, slots=True)
class ChannelMoments:
    """Mean and standard deviation of each channel of a value, each of shape [C].

    A BatchNormalization knows them of its output from training: its shift and its scale.
    """

    mean: NDArray[np.float64]
    std: NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Extent:
    """What decides whether a floating type can hold a value.

    `peak` is its largest magnitude. `offset` is its mean square over its mean variance, taken
    channel by channel: 1 where it varies around zero, a million where it varies by a thousandth
    around something, and 0 where it does not vary.
    """

    peak: float
    offset: float


@dataclass(frozen=True, slots=True)
class _Rounded:
    params: QuantParams
    integers: NDArray[np.int8]


def quant_of(value: ir.Value | None) -> QuantParams | None:
    """How the weight `value` will be quantized, or None if it stays in float."""
    found = None if value is None else value.meta.get(_QUANT)
    return found if isinstance(found, QuantParams) else None


def range_of(value: ir.Value | None) -> Range | None:
    """The interval the activation `value` is quantized over, or None if it stays in float."""
    found = None if value is None else value.meta.get(_QUANT)
    return found if isinstance(found, Range) else None


def range_source(value: ir.Value) -> ir.Value | None:
    """The value whose Range `value` takes: itself, or what was moved, or rounded, to make it."""
    while range_of(value) is None:
        producer = value.producer()
        if producer is None or producer.op_type not in _THROUGH or producer.inputs[0] is None:
            return None
        value = producer.inputs[0]
    return value


def set_quant(value: ir.Value, decision: QuantParams | Range) -> None:
    """Leave a decision on `value`, in place of an earlier one."""
    value.meta[_QUANT] = decision


def clear_quant(value: ir.Value) -> None:
    """Take the decision back: `value` stays in float."""
    value.meta.pop(_QUANT, None)


def has_ranges(model: Model) -> bool:
    """Whether some activation is to be quantized; without, decisions are about weights alone."""
    values = [*model.graph.graph.inputs, *(v for node in model.graph.graph for v in node.outputs)]
    cells = (cell_params_of(node) for node in model.nodes(*RECURRENT))
    return any(range_of(v) is not None for v in values) or any(c is not None for c in cells)


def cell_params_of(cell: ir.Node) -> CellParams | None:
    """How the recurrent node `cell` computes in integers, or None if it stays in float."""
    weight = cell.inputs[_R]
    found = None if weight is None else weight.meta.get(_CELL)
    return found if isinstance(found, CellParams) else None


def set_cell_params(cell: ir.Node, params: CellParams) -> None:
    """Leave a decision on the recurrent node `cell`, in place of an earlier one."""
    weight = cell.inputs[_R]
    assert weight is not None
    weight.meta[_CELL] = params


def clear_cell_params(cell: ir.Node) -> None:
    """Take the decision on the recurrent node `cell` back: it stays in float."""
    if (weight := cell.inputs[_R]) is not None:
        weight.meta.pop(_CELL, None)


def rounded_of(value: ir.Value | None, params: QuantParams) -> NDArray[np.int8] | None:
    """The integers learned for the weight `value` on just this grid, or None: round to nearest."""
    found = None if value is None else value.meta.get(_ROUNDED)
    if not isinstance(found, _Rounded):
        return None
    same = found.params.bits == params.bits and found.params.axis == params.axis
    return found.integers if same and np.array_equal(found.params.scale, params.scale) else None


def set_rounded(value: ir.Value, params: QuantParams, integers: NDArray[np.int8]) -> None:
    """Leave on the weight `value` what it is rounded to where it is lowered to this grid."""
    value.meta[_ROUNDED] = _Rounded(params, integers)


def clear_rounded(value: ir.Value) -> None:
    """The weight `value` rounds to the nearest again."""
    value.meta.pop(_ROUNDED, None)


def moments_of(value: ir.Value | None) -> ChannelMoments | None:
    """What is known of the channels of `value` without samples, or None."""
    found = None if value is None else value.meta.get(_MOMENTS)
    return found if isinstance(found, ChannelMoments) else None


def set_moments(value: ir.Value, moments: ChannelMoments) -> None:
    """Leave the moments of the channels on `value`, in place of earlier ones."""
    value.meta[_MOMENTS] = moments


def extent_of(value: ir.Value) -> Extent | None:
    """How the float `value` was on samples, or None where none was seen."""
    found = value.meta.get(_EXTENT)
    return found if isinstance(found, Extent) else None


def set_extent(value: ir.Value, extent: Extent) -> None:
    """Leave on `value` how it was on samples, in place of an earlier one."""
    value.meta[_EXTENT] = extent


def shift_of(value: ir.Value) -> NDArray[np.float64] | None:
    """What rounding adds to the mean of each channel of a layer's output, shape [C], or None."""
    found = value.meta.get(_SHIFT)
    return found if isinstance(found, np.ndarray) else None


def clear_shift(value: ir.Value) -> None:
    """A layer's bias is the same whether the layer is quantized or not."""
    value.meta.pop(_SHIFT, None)


def set_shift(value: ir.Value, shift: NDArray[np.float64]) -> None:
    """Leave on a layer's output what its bias is to be less by where the layer is quantized."""
    value.meta[_SHIFT] = shift


def annotated(model: Model) -> frozenset[str]:
    """Names of the values that carry a decision. Editing a weight drops its own."""
    values = [*model.graph.graph.initializers.values(), *model.graph.graph.inputs]
    values += [value for node in model.graph.graph for value in node.outputs]
    return frozenset(v.name for v in values if v.name and {_QUANT, _CELL} & set(v.meta))
