"""The model that a cut is compared with: at full size, blind for the removed units."""

from __future__ import annotations

import numpy as np
import onnx_ir as ir

from edgebm.ir.edit import Array, const, replace_const
from edgebm.ir.model import Model
from edgebm.ir.shapes import infer_shapes
from edgebm.pruning.masked_ops import mask_node
from edgebm.pruning.removal import Kept, Removed, check_removed


def masked(model: Model, removed: Removed) -> Model:
    """Make `model` blind for some units, in place, at its full size.

    Columns of constants that take removed units in are zero; sums, means, softmaxes and norms
    leave them out. It answers as `cut(model, removed)` does, to float rounding.

    Raises:
        UsageError: as for `cut`.
    """
    removal = check_removed(model, removed)
    blind: dict[ir.Node, dict[int, dict[int, Kept]]] = {}
    for taken in removal.trace.taken:
        kept = removal.kept(taken.value, taken.axis)
        if kept is not None:
            blind.setdefault(taken.node, {}).setdefault(taken.index, {})[taken.axis] = kept
    columns: dict[ir.Value, dict[int, Kept]] = {}
    for value, axis in removal.trace.reads:
        if (kept := removal.kept(value, axis)) is not None:
            columns.setdefault(value, {})[axis] = kept
    for value, axes in columns.items():
        array = const(value)
        assert array is not None
        replace_const(value, _zeroed(array, axes))
    for node, inputs in blind.items():
        for index, axes in inputs.items():
            mask_node(node, index, axes)
    infer_shapes(model)
    return model


def _zeroed(array: Array, axes: dict[int, Kept]) -> Array:
    found = array.copy()
    for axis, kept in axes.items():
        np.moveaxis(found, axis, 0)[~kept] = 0
    return found
