"""Whether two values that are added come from one value, as in a residual block."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import onnx_ir as ir

from edgebm.ir.edit import const, inputs

# They pick a part. The sums inside a recurrent cell that is written out step by step have terms
# of different steps, and are no blocks.
_PICKS = frozenset({"Slice", "Gather", "GatherND", "GatherElements", "Split"})


def is_fork(start: ir.Value, branch: Sequence[ir.Node]) -> bool:
    """Whether what the nodes of `branch` read from outside is made of what `start` is made of.

    It is for x + f(x), where `start` is x, for shortcut(x) + f(x), and for blocks side by side,
    x + f(n(x)) + g(n(x)). It is not for the products with the input and with the state in a
    recurrent cell, or for scores and a mask.
    """
    inside = set(branch)
    read = {
        value
        for node in branch
        for value in inputs(node)
        if const(value) is None and value.producer() not in inside
    }
    return start in read or not _origins([start]).isdisjoint(_origins(read))


def _origins(values: Iterable[ir.Value]) -> set[ir.Value]:
    """The values, and what each is made of: as long as it is one other, or a sum."""
    found: set[ir.Value] = set()
    left = list(values)
    while left:
        value = left.pop()
        if value in found:
            continue
        found.add(value)
        node = value.producer()
        if node is None or node.op_type in _PICKS:
            continue
        computed = [each for each in inputs(node) if const(each) is None]
        if len(computed) == 1 or node.op_type == "Add":
            left += computed
    return found
