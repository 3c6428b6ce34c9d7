"""Constants for which an operator has no answer: runtimes fail there, or each invents its own."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import onnx_ir as ir

from edgebm.ir.edit import const, input_at


def constant_faults(node: ir.Node) -> Iterator[str]:
    """What is wrong with the constants that `node` reads; nothing about inputs of the model."""
    if node.op_type in {"Div", "Mod"}:
        divisor = const(input_at(node, 1))
        if divisor is not None and divisor.dtype.kind in "iu" and not divisor.all():
            yield "it divides whole numbers by zero"
    elif node.op_type in {"Gather", "GatherElements"}:
        yield from _index_faults(node)


def _index_faults(node: ir.Node) -> Iterator[str]:
    table, indices = node.inputs[0], const(input_at(node, 1))
    if indices is None or not indices.size or table is None or table.shape is None:
        return
    axis = node.attributes.get_int("axis", 0)
    if not -len(table.shape) <= axis < len(table.shape):
        return  # the checker has words for that
    rows = table.shape[axis]
    if not isinstance(rows, int):
        return
    bad = indices[(indices < -rows) | (indices >= rows)]
    if bad.size:
        yield f"it takes row {int(np.ravel(bad)[0])} of '{table.name}', which has {rows}"
