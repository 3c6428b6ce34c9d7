"""Which integer inputs are row numbers of a table, and how many rows there are."""

from __future__ import annotations

import onnx_ir as ir

from edgebm.ir.edit import const, name
from edgebm.ir.model import Model

_SAME_NUMBERS = frozenset(
    {"Cast", "Identity", "Reshape", "Flatten", "Squeeze", "Unsqueeze", "Transpose"}
)


def index_limits(model: Model) -> dict[str, int]:
    """Rows of the smallest table that each integer input indexes; other inputs are left out.

    An id at or above this makes runtimes fail, or answer with rows that are not there.
    """
    limits = {}
    for value in model.graph.graph.inputs:
        if value.dtype is not None and value.dtype.is_integer():
            sizes = _table_sizes(value)
            if sizes:
                limits[name(value)] = min(sizes)
    return limits


def _table_sizes(value: ir.Value) -> list[int]:
    sizes = []
    for node, index in value.uses():
        if node.op_type == "Gather" and index == 1:
            table = const(node.inputs[0])
            if table is not None:
                sizes.append(table.shape[node.attributes.get_int("axis", 0)])
        elif node.op_type in _SAME_NUMBERS and index == 0:
            sizes.extend(_table_sizes(node.outputs[0]))
    return sizes
