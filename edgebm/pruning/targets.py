"""Shapes that nodes are given as a constant or computed: what they become after a cut."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import onnx_ir as ir

from edgebm.ir.dims import Free, Known, propagate, shape_array
from edgebm.ir.edit import Array, add_const, add_node, const, input_at, main_graph, set_const
from edgebm.ir.model import Model

# Which input is the shape of the output.
_SHAPE_INPUT = {"Reshape": 1, "Expand": 1, "ConstantOfShape": 0, "Resize": 3, "Upsample": 3}


def shape_input(node: ir.Node) -> ir.Value | None:
    """The input that says how large the first output is, if the op has one and it is given."""
    index = _SHAPE_INPUT.get(node.op_type)
    return None if index is None else input_at(node, index)


def known_sizes(model: Model) -> Known:
    """Every small integer tensor that is arithmetic on sizes, by its value."""
    known: Known = {}
    for node in model.nodes():
        if (found := propagate(node, known)) is not None:
            known[node.outputs[0]] = found
    return known


def repair_targets(model: Model, cut: Mapping[ir.Node, frozenset[int]]) -> None:
    """Let the shape inputs of nodes say the sizes that their outputs have now.

    `cut` has the axes of outputs that became shorter, by node; the shapes of all values are
    those after the cut.
    """
    known = known_sizes(model)
    for node, axes in cut.items():
        target = shape_input(node)
        wanted = shape_array(node.outputs[0])
        if target is None or wanted is None or node.graph is None:
            continue
        numbers = const(target)
        if numbers is not None:
            fixed = _fixed(node, numbers, wanted, axes)
            if not np.array_equal(fixed, numbers):
                set_const(node, _SHAPE_INPUT[node.op_type], fixed, suffix="cut")
        elif target in known:
            _scale(node, target, known[target], wanted, axes)


def _places(node: ir.Node, count: int, rank: int, axes: frozenset[int]) -> dict[int, int]:
    """Place in the shape input by axis of the output, for the axes that were cut."""
    named = node.attributes.get_ints("axes") if node.op_type == "Resize" else None
    if named is not None:
        return {int(axis) % rank: place for place, axis in enumerate(named) if axis in axes}
    return {axis: axis - (rank - count) for axis in axes if axis >= rank - count}


def _fixed(node: ir.Node, numbers: Array, wanted: Array, axes: frozenset[int]) -> Array:
    fixed = numbers.astype(np.int64)
    for axis, place in _places(node, len(numbers), len(wanted), axes).items():
        size = wanted[axis]
        asks = int(fixed[place])
        stays = asks == -1 or (node.op_type == "Expand" and asks == 1)
        if not stays and not isinstance(size, Free):
            fixed[place] = size
    return fixed


def _scale(
    node: ir.Node, target: ir.Value, has: Array, wanted: Array, axes: frozenset[int]
) -> None:
    """Put a factor behind a computed shape whose sizes are still the old ones."""
    times, over = np.ones(len(has), np.int64), np.ones(len(has), np.int64)
    for axis, place in _places(node, len(has), len(wanted), axes).items():
        old, new = has[place], wanted[axis]
        if isinstance(old, Free) != isinstance(new, Free) or (
            not isinstance(old, Free) and old < 1
        ):
            continue  # -1 and 0 say of themselves what is right
        a, b = (s.factor if isinstance(s, Free) else int(s) for s in (new, old))
        if a != b and not (node.op_type == "Expand" and b == 1):
            times[place], over[place] = a, b
    if (times == over).all():
        return
    graph = main_graph(node)
    label = node.name or node.op_type
    factors = [add_const(graph, f"{label}.{k}", v) for k, v in (("times", times), ("over", over))]
    scaled = add_node(node, "Mul", [target, factors[0]], label=f"{label}.times")
    scaled = add_node(node, "Div", [scaled, factors[1]], label=f"{label}.over")
    node.replace_input_with(_SHAPE_INPUT[node.op_type], scaled)
