"""Find values whose channels can be rescaled one by one without changing the model.

Between the layers that write a value and the layers that read it there are often only operations
that commute with a positive factor per channel: ReLU, pooling, a residual Add. Then channel c of
everything in between can be divided by s[c], as long as the writers' weights are divided by it
and the readers' multiplied (`ir/rescale.py` does that).
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass, field

import onnx_ir as ir

from edgebm.ir.edit import name
from edgebm.ir.layers import Channels, output_axis, rank, reads, writes
from edgebm.ir.model import Model
from edgebm.ir.moves import carry_back, carry_on, upper_limit
from edgebm.ir.traits import MATMULS


@dataclass(frozen=True, slots=True)
class Reader:
    """A layer whose input channels are those of a group, each `repeat` times in a row."""

    node: ir.Node
    repeat: int = 1


@dataclass(slots=True)
class ChannelGroup:
    """Values that share a factor per channel.

    `writers` are layers (or a BatchNormalization) that make the channels, `readers` layers that
    sum over them, `offsets` constants added in between, as (node, index of the input). `limits`
    has for the output of each ReLU6 in between its upper limit, the same for all channels: a
    channel can be rescaled as long as its values stay below. `obstacle` says why the channels
    cannot be rescaled; it is empty where they can.
    """

    channels: int
    writers: list[ir.Node] = field(default_factory=list)
    readers: list[Reader] = field(default_factory=list)
    offsets: list[tuple[ir.Node, int]] = field(default_factory=list)
    values: dict[ir.Value, Channels] = field(default_factory=dict)
    limits: dict[ir.Value, float] = field(default_factory=dict)
    obstacle: str = ""

    @property
    def label(self) -> str:
        """The name of its first writer."""
        return self.writers[0].name or "?"


def channel_groups(model: Model) -> list[ChannelGroup]:
    """The groups of all layers, in the order of their first writers.

    Groups with an obstacle are among them; groups whose channels no layer reads are not. A value
    is in one group without an obstacle at most, so that what is known of it before a group is
    rescaled holds for the others too.
    """
    found: list[ChannelGroup] = []
    seen: set[ir.Node] = set()
    owner: dict[ir.Value, ChannelGroup] = {}
    for node in model.nodes(*MATMULS, "BatchNormalization"):
        if node in seen or not writes(node):
            continue
        group = _Walk(node).group
        seen.update(group.writers)
        others = [owner[value] for value in group.values if value in owner]
        if others and not group.obstacle:
            # Two computed factors of a product, each of which could take the division.
            group.obstacle = f"its product has the factors of '{others[0].label}' already"
        if group.readers and not group.obstacle:
            owner.update(dict.fromkeys(group.values, group))
        if group.readers or (group.obstacle and not _ends_the_model(group)):
            found.append(group)
    return found


class _Walk:
    """Follows the channels of one layer's output in both directions."""

    def __init__(self, start: ir.Node) -> None:
        out = start.outputs[0]
        axis = output_axis(start)
        size = None if out.shape is None else out.shape[axis]
        self.group = ChannelGroup(size if isinstance(size, int) else 0)
        self.group.writers.append(start)
        self._crossed: set[ir.Node] = set()  # from their input to their output
        self._factors: list[ir.Value] = []  # must not have the channels that they multiply
        self._todo: deque[ir.Value] = deque()
        if self.group.channels < 2:
            self._block("it has one channel, or a number of them that is not known")
            return
        self._visit(out, Channels(axis % len(out.shape or ())))
        while self._todo:
            value = self._todo.popleft()
            self._back(value)
            for node, index in _uses(value):
                self._on(value, node, index)
            if value.is_graph_output():
                self._block("it is a model output")
        if any(factor in self.group.values for factor in self._factors):
            self._block("it is multiplied by itself")
        self._block_shared_weights()

    def _block(self, reason: str) -> None:
        self.group.obstacle = self.group.obstacle or reason

    def _visit(self, value: ir.Value, where: Channels) -> None:
        known = self.group.values.get(value)
        if known is None:
            self.group.values[value] = where
            self._todo.append(value)
        elif known != where:
            self._block(f"'{name(value)}' holds its channels in two ways")

    def _back(self, value: ir.Value) -> None:
        """Look at what computes `value`."""
        node, where = value.producer(), self.group.values[value]
        if node is None:
            self._block("it is added to a model input or a constant")
        elif node in self.group.writers or node in self._crossed:
            return
        elif writes(node) and where == Channels(output_axis(node) % rank(value)):
            self.group.writers.append(node)
        elif node.op_type in {"Add", "Sub"}:
            for index in (0, 1):
                self._operand(node, index, value)
        elif node.op_type == "Mul":
            self._factor_of(node, value)
        elif (limit := upper_limit(node)) is not None:
            assert node.inputs[0] is not None
            self.group.limits[value] = limit
            self._visit(node.inputs[0], where)
        elif (before := carry_back(node, where.axis)) is None:
            self._block(f"it is added to the output of a {node.op_type}")
        else:
            assert node.inputs[0] is not None
            self._visit(node.inputs[0], Channels(before, where.repeat))

    def _on(self, value: ir.Value, node: ir.Node, index: int) -> None:
        """Look at one node that reads `value`."""
        where = self.group.values[value]
        if node.op_type in {"Add", "Sub"}:
            out = node.outputs[0]
            self._visit(out, Channels(where.axis + rank(out) - rank(value), where.repeat))
            self._operand(node, 1 - index, out)
        elif node.op_type == "Mul" or (node.op_type == "Div" and index == 0):
            factor, out = node.inputs[1 - index], node.outputs[0]
            assert factor is not None
            if rank(out) != rank(value):
                self._block("a product gives it more axes")
                return
            self._factors.append(factor)
            self._crossed.add(node)
            self._visit(out, where)
        elif index == 0 and reads(node, where):
            self.group.readers.append(Reader(node, where.repeat))
        elif index == 0 and (limit := upper_limit(node)) is not None:
            self.group.limits[node.outputs[0]] = limit
            self._crossed.add(node)
            self._visit(node.outputs[0], where)
        elif index == 0 and (after := carry_on(node, where.axis)) is not None:
            axis, repeat = after
            self._crossed.add(node)
            self._visit(node.outputs[0], Channels(axis, repeat * where.repeat))
        else:
            self._block(_why_not(node))

    def _factor_of(self, node: ir.Node, out: ir.Value) -> None:
        """Include the one factor of a product that has the product's shape."""
        full = [v for v in node.inputs if v and v.const_value is None and v.shape == out.shape]
        if len(full) != 1 or out.shape is None:
            self._block("it is added to a product of two values")
            return
        self._factors += [v for v in node.inputs if v is not None and v is not full[0]]
        self._visit(full[0], self.group.values[out])

    def _operand(self, node: ir.Node, index: int, out: ir.Value) -> None:
        """Include operand `index` of a sum that has the group's channels."""
        value, where = node.inputs[index], self.group.values[out]
        assert value is not None
        if value.const_value is not None:
            if (node, index) not in self.group.offsets:
                self.group.offsets.append((node, index))
            return
        axis = where.axis - (rank(out) - rank(value))
        whole = self.group.channels * where.repeat
        if axis < 0 or value.shape is None or value.shape[axis] != whole:
            self._block("an Add spreads another value over its channels")
        else:
            self._visit(value, Channels(axis, where.repeat))

    def _block_shared_weights(self) -> None:
        layers = [*self.group.writers, *(reader.node for reader in self.group.readers)]
        for node in layers:
            weight = node.inputs[1]
            assert weight is not None
            if len(tuple(weight.uses())) > 1:
                self._block(f"the weight of '{node.name}' is shared with another layer")


def _uses(value: ir.Value) -> Iterator[tuple[ir.Node, int]]:
    for use in value.uses():
        yield use.node, use.idx


def _why_not(node: ir.Node) -> str:
    if node.op_type == "Clip":
        return f"the limits of '{node.name}' do not scale with its input"
    if node.op_type == "Concat":
        return f"'{node.name}' puts other channels beside it"
    if node.op_type in MATMULS:
        return f"'{node.name}' has no constant float32 weight for its channels"
    return f"no factor passes through {node.op_type}, or it moves the channels"


def _ends_the_model(group: ChannelGroup) -> bool:
    """Whether nothing but a model output reads the group's values."""
    return all(
        use.node.outputs[0] in group.values for value in group.values for use in value.uses()
    )
