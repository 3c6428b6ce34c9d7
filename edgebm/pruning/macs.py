"""Multiply-accumulates of a model, and what is left of them at other widths."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass

import onnx_ir as ir

from edgebm.exec.collect import Feeds, FloatRunner
from edgebm.ir.edit import const, name
from edgebm.ir.model import Model
from edgebm.ir.traits import MATMULS, RECURRENT, is_float
from edgebm.pruning.group import Group

Counts = Mapping[str, int]
"""How many units of each group are removed, by the group's name."""

_W, _R = 1, 2


@dataclass(frozen=True, slots=True)
class Width:
    """An axis of a weight: its positions, and how many of them a unit of each group has."""

    size: int
    units: tuple[tuple[str, int], ...]

    def kept(self, removed: Counts) -> int:
        """Positions that are left."""
        return self.size - sum(each * removed.get(group, 0) for group, each in self.units)


@dataclass(frozen=True, slots=True)
class Term:
    """One product of a layer: its multiply-accumulates at full width, and its weight's axes.

    `weight` is the index of the node's input that holds it, None where both are computed.
    """

    node: str
    macs: int
    axes: tuple[Width, ...]
    weight: int | None

    def left(self, removed: Counts) -> float:
        """The multiply-accumulates that are left."""
        return self.macs * math.prod(axis.kept(removed) / axis.size for axis in self.axes)

    @property
    def groups(self) -> frozenset[str]:
        """The groups whose units narrow it."""
        return frozenset(group for axis in self.axes for group, _ in axis.units)


def value_shapes(model: Model, feeds: Feeds) -> dict[str, tuple[int, ...]]:
    """The shape of every value that a layer with a product reads or writes, on one sample."""
    nodes = list(model.nodes(*MATMULS, *RECURRENT))
    values = {name(v) for n in nodes for v in (*n.inputs, *n.outputs) if v and v.name}
    constants = set(model.graph.graph.initializers)
    got = FloatRunner(model, sorted(values - constants)).run(feeds)
    return {label: array.shape for label, array in got.items()}


def terms_of(
    model: Model, groups: Iterable[Group], shapes: Mapping[str, tuple[int, ...]]
) -> list[Term]:
    """The products of a model, in the order of the graph.

    Args:
        model: canonical.
        groups: those of `find_groups`.
        shapes: those of `value_shapes`.
    """
    places: dict[tuple[str, int], list[tuple[str, int]]] = {}
    listed: dict[str, list[tuple[str, int]]] = {}
    for group in groups:
        held = {(p.name, p.axis): p.index.shape[1] for p in (*group.reads, *group.writes)}
        for place, each in held.items():
            places.setdefault(place, []).append((group.name, each))
        for layer in group.layers:
            listed.setdefault(layer, []).append((group.name, group.units))
    found = []
    for node in model.nodes(*MATMULS, *RECURRENT):
        weights = list(_weights(node, shapes))
        for index, shape, times in weights:
            label = name(_value(node, index))
            axes = tuple(
                Width(size, tuple(places.get((label, axis), ())))
                for axis, size in enumerate(shape)
            )
            found.append(Term(node.name or "?", times * math.prod(shape), axes, index))
        if not weights and node.op_type in MATMULS:
            # Both operands are computed: heads, each of which has a product of its own.
            inner = shapes[name(_value(node, 0))][-1]
            heads = tuple(
                Width(units, ((group, 1),)) for group, units in listed.get(node.name or "?", ())
            )
            macs = math.prod(shapes[name(node.outputs[0])]) * inner
            found.append(Term(node.name or "?", macs, heads, None))
    return found


def macs(model: Model, feeds: Feeds) -> int:
    """Multiply-accumulates of one call, those of element-wise ops not counted."""
    return sum(term.macs for term in terms_of(model, (), value_shapes(model, feeds)))


def _weights(
    node: ir.Node, shapes: Mapping[str, tuple[int, ...]]
) -> Iterator[tuple[int, tuple[int, ...], int]]:
    """Input index and shape of each constant matrix, and how often each of its numbers is used."""
    if node.op_type in RECURRENT:
        steps, batch = shapes[name(_value(node, 0))][:2]
        for index in (_W, _R):
            if (array := const(node.inputs[index])) is not None:
                yield index, array.shape, steps * batch
        return
    array = const(node.inputs[1])
    if array is None or not is_float(node.inputs[1]):
        return
    if node.op_type == "ConvTranspose":
        read = shapes[name(_value(node, 0))]
        times = math.prod(read) // read[1]
    else:
        made = shapes[name(node.outputs[0])]
        times = math.prod(made) // made[1 if node.op_type == "Conv" else -1]
    yield 1, array.shape, times


def _value(node: ir.Node, index: int) -> ir.Value:
    value = node.inputs[index]
    assert value is not None
    return value
