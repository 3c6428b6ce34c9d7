"""Masks of attentions in numbers that FP16 has.

A mask adds minus infinity, or the lowest number of FP32, to what a Softmax is then taken of. Any
number far below the scores does the same, and sums of it with scores stay finite.
"""

from __future__ import annotations

import numpy as np
import onnx_ir as ir

from edgebm.ir.edit import const, replace_const
from edgebm.ir.model import Model
from edgebm.ir.traits import is_float

MASKED = -float(2**14)  # exp() of what lies so far below the scores is 0, in FP32 too
_HANDED_ON = frozenset({
    "Add", "Mul", "Where", "Cast", "Unsqueeze", "Squeeze", "Expand", "Reshape", "Slice",
    "Transpose", "Concat", "Identity",
})  # fmt: skip


def settle_masks(model: Model) -> Model:
    """A copy in which constants below `MASKED` that reach nothing but Softmax are `MASKED`."""
    out = model.clone()
    for value in list(out.graph.graph.initializers.values()):
        array = const(value) if is_float(value) else None
        if array is None or not array.size or not (array < MASKED).any():
            continue
        if not value.is_graph_output() and _only_masks(value, set()):
            replace_const(value, np.maximum(array, np.asarray(MASKED, array.dtype)))
    return out


def _only_masks(value: ir.Value, seen: set[ir.Node]) -> bool:
    """Whether `value` ends in a Softmax on every way, through sums and what moves values."""
    uses = list(value.uses())
    if not uses or value.is_graph_output():
        return False
    for node, index in uses:
        if node.op_type == "Softmax" or node in seen:
            continue
        chosen_by = node.op_type == "Where" and index == 0
        if node.op_type not in _HANDED_ON or chosen_by:
            return False
        seen.add(node)
        if not all(_only_masks(out, seen) for out in node.outputs):
            return False
    return True
