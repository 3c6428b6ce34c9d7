"""Decisions passes leave on the graph for the backend, in one typed place.

A weight carries `QuantParams`, an activation a `Range`: which integers cover that range
(signed, unsigned, with or without zero point) is the dialect's affair. They live in
`Value.meta`: copied by `clone()`, not written into an ONNX file. No other module reads or
writes these keys.
"""

from __future__ import annotations

import onnx_ir as ir

from edgebm.ir.model import Model
from edgebm.quant.params import QuantParams, Range

_QUANT = "edgebm.quant"


def quant_of(value: ir.Value | None) -> QuantParams | None:
    """How the weight `value` will be quantized, or None if it stays in float."""
    found = None if value is None else value.meta.get(_QUANT)
    return found if isinstance(found, QuantParams) else None


def range_of(value: ir.Value | None) -> Range | None:
    """The interval the activation `value` is quantized over, or None if it stays in float."""
    found = None if value is None else value.meta.get(_QUANT)
    return found if isinstance(found, Range) else None


def set_quant(value: ir.Value, decision: QuantParams | Range) -> None:
    """Leave a decision on `value`, in place of an earlier one."""
    value.meta[_QUANT] = decision


def clear_quant(value: ir.Value) -> None:
    """Take the decision back: `value` stays in float."""
    value.meta.pop(_QUANT, None)


def annotated(model: Model) -> frozenset[str]:
    """Names of the values that carry a decision. Editing a weight drops its own."""
    values = [*model.graph.graph.initializers.values(), *model.graph.graph.inputs]
    values += [value for node in model.graph.graph for value in node.outputs]
    return frozenset(value.name for value in values if value.name and _QUANT in value.meta)
