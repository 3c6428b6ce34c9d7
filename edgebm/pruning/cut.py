"""Cut units out of a graph: constants get shorter, attributes and shapes follow."""

from __future__ import annotations

import numpy as np
import onnx_ir as ir

from edgebm.ir.dims import Free
from edgebm.ir.edit import const, remove_dead, replace_const
from edgebm.ir.model import Model
from edgebm.ir.shapes import infer_shapes
from edgebm.pruning.removal import Kept, Removal, Removed, check_removed
from edgebm.pruning.repair import Edit, edits_of
from edgebm.pruning.targets import repair_targets


def cut(model: Model, removed: Removed) -> Model:
    """Remove units from `model`, in place; names of nodes and values stay.

    What is left computes what the whole model does when all that reads the removed units sees
    zeros, and norms and means are taken over the kept ones (`masked`).

    Args:
        model: in canonical form, float.
        removed: numbers of the units to remove, by the name of their group (`find_groups`).

    Raises:
        UsageError: names or numbers that do not exist, or a group that nothing is left of; all.
    """
    removal = check_removed(model, removed)
    narrowed = dict(removal.narrowed())
    if not narrowed:
        return model
    edits: list[Edit] = [edit for node in model.nodes() for edit in edits_of(node, removal)]
    shapes = {value: _shape(removal, value, axes) for value, axes in narrowed.items()}
    targets = {node: _cut_axes(node, narrowed) for node in model.nodes()}
    for value, axes in narrowed.items():
        if (array := const(value)) is not None:
            for axis, kept in axes.items():
                array = array.compress(kept, axis)
            replace_const(value, np.ascontiguousarray(array))
        else:
            value.shape = shapes[value]
    for edit in edits:
        edit()
    repair_targets(model, {node: axes for node, axes in targets.items() if axes})
    remove_dead(model.graph.graph)
    infer_shapes(model)
    return model


def _shape(removal: Removal, value: ir.Value, axes: dict[int, Kept]) -> ir.Shape | None:
    """The shape after the cut, from the labels alone."""
    sizes = removal.trace.sizes(value)
    if value.shape is None or sizes is None:
        return None
    dims: list[int | str | None] = [
        dim if isinstance(dim, int) else dim.value for dim in value.shape
    ]
    for axis, kept in axes.items():
        size, count = sizes[axis], int(kept.sum())
        # The free part comes along: 12*batch with 8 of 12 left is 8*batch.
        dims[axis] = "*".join([str(count), *size.names]) if isinstance(size, Free) else count
    return ir.Shape(dims)


def _cut_axes(node: ir.Node, narrowed: dict[ir.Value, dict[int, Kept]]) -> frozenset[int]:
    """Axes of the node's first output that lose positions."""
    return frozenset(narrowed.get(node.outputs[0], {})) if node.outputs else frozenset()
