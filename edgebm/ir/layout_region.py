"""Nodes that do the same in any layout, and hang together: transposes around them may go."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
import onnx_ir as ir

from edgebm.ir.edit import const, input_at
from edgebm.ir.rewrite import rank

Perm = tuple[int, ...]

_UNARY = frozenset(
    {
        "Abs", "Cast", "Ceil", "Clip", "Elu", "Erf", "Exp", "Floor", "Gelu", "HardSigmoid",
        "HardSwish", "Identity", "LeakyRelu", "Log", "Mish", "Neg", "Reciprocal", "Relu",
        "Round", "Selu", "Sigmoid", "Sign", "Softplus", "Softsign", "Sqrt", "Tanh",
    }
)  # fmt: skip
BROADCAST = frozenset({"Add", "Div", "Max", "Min", "Mul", "PRelu", "Pow", "Sub", "Sum", "Where"})
ONE_AXIS = frozenset({"Concat", "LogSoftmax", "Softmax"})
REDUCTIONS = frozenset({"ReduceL2", "ReduceMax", "ReduceMean", "ReduceMin", "ReduceSum"})
_MAX_NODES = 10_000


def perm_of(node: ir.Node) -> Perm | None:
    """The order of axes of a Transpose; None of others, and where its rank is not known."""
    if node.op_type != "Transpose":
        return None
    given = node.attributes.get_ints("perm")
    if given is not None:
        return tuple(given)
    dims = rank(node.inputs[0])
    return None if dims is None else tuple(reversed(range(dims)))


def inverse(perm: Perm) -> Perm:
    """The order of axes that undoes `perm`."""
    return tuple(int(axis) for axis in np.argsort(perm))


@dataclass(slots=True)
class Region:
    """Nodes that can all be computed in the layout in front of transposes by `perm`."""

    graph: ir.Graph
    perm: Perm
    entries: dict[ir.Node, None] = field(default_factory=dict)
    """Transposes by `perm` that feed the region."""
    foreign: dict[ir.Value, None] = field(default_factory=dict)
    """Values in the outer layout that feed it: each needs a transpose."""
    nodes: dict[ir.Node, None] = field(default_factory=dict)
    exits: dict[ir.Node, None] = field(default_factory=dict)
    """Transposes back, which go."""
    kept: dict[ir.Value, None] = field(default_factory=dict)
    """Values of the region that are read in the outer layout: each needs a transpose."""

    def gain(self) -> int:
        """How many transposes fewer there are without it."""
        going = [e for e in self.entries if self._is_only_ours(e)]
        return len(going) + len(self.exits) - len(self.foreign) - len(self.kept)

    def moves_down(self, start: ir.Node) -> bool:
        """Whether what a convolution is fused with would come to stand right behind it."""
        before = start.inputs[0].producer() if start.inputs[0] is not None else None
        layer = before is not None and before.op_type in ("Conv", "ConvTranspose")
        return layer and not self.foreign and not self.exits and list(self.entries) == [start]

    def _is_only_ours(self, entry: ir.Node) -> bool:
        out = entry.outputs[0]
        mine = all(use.node in self.nodes or use.node in self.exits for use in out.uses())
        return mine and not out.is_graph_output()

    def grow(self, start: ir.Node) -> bool:
        """Take in everything that hangs together with `start`; False if that is too much."""
        self.entries[start] = None
        ahead = [start.outputs[0]]
        seen = set(ahead)
        while ahead:
            if len(self.nodes) > _MAX_NODES:
                return False
            value = ahead.pop()
            ours = value.producer() in self.nodes
            if ours and value.is_graph_output():
                self.kept[value] = None
            found = [v for use in value.uses() for v in self._reader(use.node, value)]
            ahead += [v for v in dict.fromkeys(found) if v not in seen]
            seen.update(found)
        return True

    def _reader(self, node: ir.Node, value: ir.Value) -> list[ir.Value]:
        """Take in a reader of `value`, if it may be; the values that are now in the region."""
        if node in self.nodes or node in self.exits:
            return []
        if perm_of(node) == inverse(self.perm):
            self.exits[node] = None
        elif self._may_enter(node):
            return self._taken(node)
        elif value.producer() in self.nodes:
            self.kept[value] = None
        return []

    def _taken(self, node: ir.Node) -> list[ir.Value]:
        """Take in a node, and what computes its other inputs where that does not mind either."""
        found: list[ir.Value] = []
        taken = [node]
        while taken:
            node = taken.pop()
            if node in self.nodes:
                continue
            self.nodes[node] = None
            if node.op_type not in REDUCTIONS or keeps_dims(node):
                found.append(node.outputs[0])
            for value in moved_inputs(node):
                producer = value.producer()
                if producer is not None and perm_of(producer) == self.perm:
                    self.entries[producer] = None
                    found.append(value)
                elif producer is not None and (producer in self.nodes or self._may_lead(producer)):
                    taken.append(producer)
                else:
                    self.foreign[value] = None
        return found

    def _may_lead(self, node: ir.Node) -> bool:
        return self._may_enter(node) and node.op_type not in REDUCTIONS

    def _may_enter(self, node: ir.Node) -> bool:
        """Whether a node does the same in every layout of its inputs."""
        if node.domain or node.graph is not self.graph or len(node.outputs) != 1:
            return False
        dims = len(self.perm)
        moved = moved_inputs(node)
        if not moved or any(rank(value) != dims for value in moved):
            return False
        if node.op_type in BROADCAST:
            constants = [v for v in node.inputs if v is not None and v.const_value is not None]
            return all((rank(v) or 0) <= dims for v in constants)
        if node.op_type in REDUCTIONS:
            return reduced_axes(node, self.perm) is not None
        return node.op_type in _UNARY or node.op_type in ONE_AXIS


def keeps_dims(node: ir.Node) -> bool:
    """Whether a reduction leaves an axis of size 1."""
    return node.attributes.get_int("keepdims", 1) != 0


def moved_inputs(node: ir.Node) -> list[ir.Value]:
    """The inputs that change their layout with the node; constants are rewritten instead."""
    count = 1 if node.op_type in _UNARY or node.op_type in REDUCTIONS else len(node.inputs)
    return [v for v in node.inputs[:count] if v is not None and v.const_value is None]


def reduced_axes(node: ir.Node, perm: Perm) -> list[int] | None:
    """The axes of a reduction in the inner layout, if what is left keeps its order."""
    axes = const(input_at(node, 1))
    if axes is None or not axes.size:
        return None
    gone = {int(axis) % len(perm) for axis in axes.reshape(-1)}
    left = [perm[axis] for axis in range(len(perm)) if axis not in gone]
    if not keeps_dims(node) and left != sorted(left):
        return None
    return sorted(perm[axis] for axis in gone)
