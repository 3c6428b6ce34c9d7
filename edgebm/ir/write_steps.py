"""A chain of steps written as one LSTM, GRU or RNN node."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import onnx_ir as ir

from edgebm.ir.edit import add_const, free_name, inputs
from edgebm.ir.expressions import Reader
from edgebm.ir.parts import Part
from edgebm.ir.simplify import is_zeros
from edgebm.ir.step_chains import Chain
from edgebm.ir.steps import Step


@dataclass(slots=True)
class Writer:
    """Appends nodes to a graph; their order is set right by a sort at the end."""

    graph: ir.Graph
    label: str
    known: Mapping[Part, ir.Value]
    made: dict[tuple[str, object], ir.Value] = field(default_factory=dict)

    def node(
        self,
        op_type: str,
        args: Sequence[ir.Value | None],
        attributes: dict[str, Any],
        count: int = 1,
    ) -> ir.Node:
        made = ir.node(op_type, args, attributes, num_outputs=count)
        made.name = f"{self.label}.{op_type}_{len(self.graph)}"
        self.graph.append(made)
        for index, out in enumerate(made.outputs):
            out.name = free_name(self.graph, f"{made.name}_out{index}")
        return made

    def add(self, op_type: str, args: Sequence[ir.Value | None], **attributes: Any) -> ir.Value:
        return self.node(op_type, args, attributes).outputs[0]

    def const(self, what: str, array: object) -> ir.Value:
        found = np.asarray(array)
        key = (what, found.tobytes())
        if key not in self.made:
            self.made[key] = add_const(self.graph, f"{self.label}.{what}", found)
        return self.made[key]

    def part(self, part: Part) -> ir.Value:
        """A value that is exactly this part."""
        if part in self.known:
            return self.known[part]
        value = part.value
        for axis, index in part.at:
            value = self.add("Gather", [value, self.const("index", np.int64(index))], axis=axis)
        if (part.lo, part.hi) == (0, _width(part.value)):
            return value
        cut = [self.const(k, np.array([n])) for k, n in (("lo", part.lo), ("hi", part.hi))]
        return self.add("Slice", [value, *cut, self.const("last", np.array([-1]))])


def _width(value: ir.Value) -> object:
    return value.shape[-1] if value.shape is not None else None


def write_chain(graph: ir.Graph, chain: Chain, label: str) -> dict[ir.Value, ir.Value]:
    """Add the node for a chain; return the new value for each state the chain made.

    Nothing reads them yet. The states of the steps come first, then stacks of all of them, then
    the last c.
    """
    writer = Writer(graph, label, chain.known)
    x, reverse = _sequence(writer, chain)
    steps = chain.steps
    args = [x, *weights_of(writer, chain), None, _state(writer, chain.h)]
    if chain.op == "LSTM":
        args.append(_state(writer, chain.c))
    while args[-1] is None:
        args.pop()
    cell = writer.node(chain.op, args, attributes_of(chain), 3 if chain.op == "LSTM" else 2)
    cell.name = label
    if reverse:
        cell.attributes["direction"] = ir.AttrString("direction", "reverse")
    zero = writer.const("first", np.array([0]))
    new: dict[ir.Value, ir.Value] = {}
    if len(steps) > 1:
        new |= _sequence_out(writer, chain, cell.outputs[0], reverse=reverse)
    # A layer behind reads all steps: with the last one from Y too it reads one sequence.
    if len(steps) == 1 or not _is_read_by_others(steps[0], steps[1]):
        new[steps[-1].out] = writer.add("Squeeze", [cell.outputs[1], zero])
    if steps[-1].c_out is not None:
        new[steps[-1].c_out] = writer.add("Squeeze", [cell.outputs[2], zero])
    return new


def weights_of(writer: Writer, chain: Chain) -> list[ir.Value | None]:
    """W, R and B of a chain's node as new constants; no B where it would be zeros."""
    weights = chain.weights
    bias = np.concatenate([weights.wb, weights.rb])[None]
    return [
        writer.const("w", weights.w[None]),
        writer.const("r", weights.r[None]),
        writer.const("b", bias) if bias.any() else None,
    ]


def attributes_of(chain: Chain) -> dict[str, Any]:
    """What a chain's node says beside its weights."""
    found: dict[str, Any] = {"hidden_size": chain.steps[0].width}
    if chain.steps[-1].behind_reset is not None:
        found["linear_before_reset"] = 1
    if chain.steps[0].activation != "Tanh":
        found["activations"] = [chain.steps[0].activation]
    return found


def _state(writer: Writer, part: Part | None) -> ir.Value | None:
    """A state [B, H] as [1, B, H]; zeros are left out."""
    if part is None or is_zeros(part.value):
        return None
    return writer.add("Unsqueeze", [writer.part(part), writer.const("first", np.array([0]))])


def _sequence(writer: Writer, chain: Chain) -> tuple[ir.Value, bool]:
    """The inputs of all steps as [T, B, I], and whether the steps go through it backwards."""
    columns = list(zip(*chain.xs, strict=True))
    whole = [_stretch(writer, column) for column in columns]
    if len(chain.steps) > 1 and all(found is not None for found in whole):
        directions = {found[1] for found in whole if found is not None}
        if len(directions) == 1:
            values = [found[0] for found in whole if found is not None]
            return _joined(writer, values), directions.pop()
    values = []
    for column in columns:
        axis = writer.const("first", np.array([0]))
        steps = [writer.add("Unsqueeze", [writer.part(part), axis]) for part in column]
        values.append(steps[0] if len(steps) == 1 else writer.add("Concat", steps, axis=0))
    return _joined(writer, values), False


def _joined(writer: Writer, values: list[ir.Value]) -> ir.Value:
    return values[0] if len(values) == 1 else writer.add("Concat", values, axis=2)


def _stretch(writer: Writer, column: Sequence[Part]) -> tuple[ir.Value, bool] | None:
    """The steps' parts as one stretch of a sequence they are all taken from, if they are."""
    first, last = column[0], column[-1]
    root = first.value
    if root.shape is None or len(root.shape) != 3 or any(len(part.at) != 1 for part in column):
        return None
    axis, start = first.at[0]
    stride = -1 if len(column) > 1 and last.at[0][1] < start else 1
    for k, part in enumerate(column):
        if part.value is not root or (part.lo, part.hi) != (first.lo, first.hi):
            return None
        if part.at[0] != (axis, start + k * stride):
            return None
    low, high = sorted((start, last.at[0][1]))
    value = root
    if (low, high + 1) != (0, root.shape[axis]):
        value = _cut(writer, value, low, high + 1, axis)
    if (first.lo, first.hi) != (0, _width(root)):
        value = _cut(writer, value, first.lo, first.hi, 2)
    return (value if axis == 0 else writer.add("Transpose", [value], perm=[1, 0, 2])), stride < 0


def _cut(writer: Writer, value: ir.Value, lo: int, hi: int, axis: int) -> ir.Value:
    bounds = [writer.const(k, np.array([n])) for k, n in (("lo", lo), ("hi", hi), ("axis", axis))]
    return writer.add("Slice", [value, *bounds])


def _sequence_out(
    writer: Writer, chain: Chain, y: ir.Value, *, reverse: bool
) -> dict[ir.Value, ir.Value]:
    """New values for each step's h, and for values that stack all of them in order."""
    steps = chain.steps
    rows = writer.add("Squeeze", [y, writer.const("second", np.array([1]))])
    order = list(reversed(steps)) if reverse else steps
    new = {}
    for k, step in enumerate(order):
        index = writer.const("index", np.int64(k))
        new[step.out] = writer.add("Gather", [rows, index], axis=0)
    for stack, axis in _stacks(order):
        flat = writer.add("Squeeze", [y, writer.const("second", np.array([1]))])
        new[stack] = flat if axis == 0 else writer.add("Transpose", [flat], perm=[1, 0, 2])
    return new


def _is_read_by_others(step: Step, following: Step) -> bool:
    """Whether a step's h is read for more than the next step and stacks of all steps."""
    own, ahead = set(), [following.out]
    while ahead:
        node = ahead.pop().producer()
        if node is not None and node not in own:
            own.add(node)
            ahead += [v for v in inputs(node) if v not in (step.out, step.c_out)]
    readers = {usage.node for usage in step.out.uses()}
    return any(node not in own and node.op_type != "Unsqueeze" for node in readers)


def _stacks(steps: list[Step]) -> list[tuple[ir.Value, int]]:
    """Values that are all the steps' h in order along a new axis: 0 or 1."""
    found = []
    for usage in steps[0].out.uses():
        if usage.node.op_type != "Unsqueeze":
            continue
        for joint in usage.node.outputs[0].uses():
            axis = _stack_axis(joint.node, steps)
            if axis is not None and (joint.node.outputs[0], axis) not in found:
                found.append((joint.node.outputs[0], axis))
    return found


def _stack_axis(node: ir.Node, steps: list[Step]) -> int | None:
    if node.op_type != "Concat" or len(node.inputs) != len(steps):
        return None
    axis = node.attributes.get_int("axis", 0) % 3
    for value, step in zip(node.inputs, steps, strict=True):
        part = Reader().origin(Part(value, 0, step.width, ((axis, 0),))) if value else None
        if part is None or part.value is not step.out or part.at:
            return None
    return axis if axis in (0, 1) else None
