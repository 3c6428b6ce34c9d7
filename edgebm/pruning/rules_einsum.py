"""Rule of Einsum: one axis for each letter."""

from __future__ import annotations

import itertools

import onnx_ir as ir

from edgebm.ir.edit import const, inputs
from edgebm.pruning.rules_axes import Rule
from edgebm.pruning.trace import Axis, Trace


def _einsum(node: ir.Node, trace: Trace) -> None:
    """Letters that the output lacks are summed over."""
    equation = node.attributes.get_string("equation", "").replace(" ", "")
    given, arrow, result = equation.partition("->")
    terms, values = given.split(","), inputs(node)
    plain = bool(arrow) and "." not in equation
    plain = plain and all(len(set(term)) == len(term) for term in (*terms, result))
    if not plain or any(trace.rank(v) != len(t) for v, t in zip(values, terms, strict=True)):
        trace.freeze_node(node, f"its equation '{equation}' has no rule")
        return
    at: dict[str, list[tuple[int, Axis]]] = {}
    for index, (value, term) in enumerate(zip(values, terms, strict=True)):
        for axis, letter in enumerate(term):
            if not trace.is_one(value, axis):
                at.setdefault(letter, []).append((index, (value, axis)))
    for letter, found in at.items():
        for (_, one), (_, other) in itertools.pairwise(found):
            trace.join(node, one, other)
        if letter in result:
            _stays(node, trace, [axis for _, axis in found], result.index(letter))
        else:
            _summed(node, trace, found)


def _stays(node: ir.Node, trace: Trace, found: list[Axis], axis: int) -> None:
    trace.join(node, found[0], (node.outputs[0], axis))
    if all(const(value) is not None for value, _ in found):
        trace.make(node, (node.outputs[0], axis))


def _summed(node: ir.Node, trace: Trace, found: list[tuple[int, Axis]]) -> None:
    held = [axis for _, axis in found if const(axis[0]) is not None]
    computed = [(index, axis) for index, axis in found if const(axis[0]) is None]
    if held and computed:
        trace.read(node, held[0], computed[0][1])
    elif computed and trace.of(*computed[0][1]) is not None:
        trace.take(node, computed[0][0], computed[0][1][1])


RULES: dict[str, Rule] = {"Einsum": _einsum}
