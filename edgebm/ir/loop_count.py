"""Integers and conditions of a Loop, in terms of its step and of sizes."""

from __future__ import annotations

from dataclasses import dataclass, field

import onnx_ir as ir

from edgebm.ir.dims import Free, Known
from edgebm.ir.edit import const, inputs

_SAME = frozenset({"Cast", "Identity", "Squeeze", "Unsqueeze", "Reshape"})


@dataclass(frozen=True, slots=True)
class Count:
    """`steps` times the number of the current step, plus a size, plus a number."""

    steps: int
    size: Free | None
    number: int


@dataclass(slots=True)
class Counting:
    """What is known of the integers of one Loop with the body `graph`.

    `sizes` are the outer graph's small integer tensors, `fixed` the carried values that never
    change, with what they are in the outer graph, `counters` those that are the step's number.
    """

    graph: ir.Graph
    sizes: Known
    fixed: dict[ir.Value, ir.Value] = field(default_factory=dict)
    counters: set[ir.Value] = field(default_factory=set)

    def count(self, value: ir.Value) -> Count | None:
        """An integer of the loop in terms of its step and of sizes."""
        if value in self.counters:
            return Count(1, None, 0)
        if value in self.fixed:
            return self.count(self.fixed[value])
        found = const(value)
        if found is None:
            found = self.sizes.get(value)
        if found is not None:
            element = found.reshape(-1)[0] if found.size == 1 else None
            if isinstance(element, Free):
                return Count(0, element, 0)
            if element is None or not float(element).is_integer():
                return None
            return Count(0, None, int(element))
        return self._computed(value.producer())

    def _computed(self, node: ir.Node | None) -> Count | None:
        if node is None or node.inputs[0] is None:
            return None
        if node.op_type in _SAME:
            return self.count(node.inputs[0])
        if node.op_type not in ("Add", "Sub") or node.inputs[1] is None:
            return None
        a, b = self.count(node.inputs[0]), self.count(node.inputs[1])
        if a is None or b is None or b.size is not None or b.steps:
            return None
        sign = 1 if node.op_type == "Add" else -1
        return Count(a.steps, a.size, a.number + sign * b.number)

    def holds(self, value: ir.Value, trips: Count) -> bool:
        """Whether a condition is true in all steps but the last, of which there are `trips`."""
        array = const(value)
        if array is not None:
            return bool(array.all())
        if value is self.graph.inputs[1]:
            return True
        node = value.producer()
        if node is None:
            return False
        if node.op_type in ("And", "Identity", "Cast", "Squeeze"):
            parts = inputs(node)[: 2 if node.op_type == "And" else 1]
            return all(self.holds(part, trips) for part in parts)
        if node.op_type not in ("Less", "Greater"):
            return False
        low, high = (self.count(v) for v in inputs(node))
        if node.op_type == "Greater":
            low, high = high, low
        return low is not None and high is not None and _is_less(low, high, trips)


def _is_less(low: Count, high: Count, trips: Count) -> bool:
    """Whether it holds in all steps but the last, where what comes behind does not matter.

    Sizes are at least 1.
    """
    if high.steps or low.size is not None:
        return False
    if not low.steps:
        return low.number < high.number + (high.size is not None)
    # The second to last step has the number trips - 2.
    if high.size != trips.size:
        return False
    return low.number - 2 + trips.number < high.number
