"""A graph cut into stretches that follow each other, with few values between them."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import onnx_ir as ir

from edgebm.ir.edit import const, inputs, name
from edgebm.ir.model import Model
from edgebm.ir.traits import ACTIVATIONS, MOVES

# What follows a layer in its own stretch: rounding errors pass through it one by one.
_FOLLOWS = (
    ACTIVATIONS
    | MOVES
    | {
        "Add", "AveragePool", "Elu", "Gelu", "GlobalAveragePool", "HardSigmoid", "HardSwish",
        "Identity", "LayerNormalization", "LeakyRelu", "Mish", "Mul", "PRelu", "Selu", "Sigmoid",
        "Softplus", "Tanh",
    }
)  # fmt: skip
_MOST_LAYERS = 8


@dataclass(frozen=True, slots=True)
class Stage:
    """Nodes next to each other in the order of the graph.

    `reads` are the computed values that come from outside, graph inputs among them, and `writes`
    those that are read outside, or are outputs of the graph. `layers` are those of its nodes that
    the cuts were made for.
    """

    nodes: tuple[ir.Node, ...]
    layers: tuple[ir.Node, ...]
    reads: tuple[str, ...]
    writes: tuple[str, ...]


def stages(model: Model, is_layer: Callable[[ir.Node], bool]) -> list[Stage]:
    """All nodes of `model`, in order.

    Cuts are made where a single value leads from what is in front to what is behind: between the
    blocks of a residual network, and between the layers of a chain. What no layer has a part in
    (masks, positions) does not count. A stretch without such a place that has more than eight
    layers is cut in front of each. Elementwise ops and norms stay with the layer in front of
    them; what else has to be computed before the first layer of a stretch is apart.

    Source:
        Li et al. 2021, "BRECQ", arXiv:2102.05426, section 3.2 (blocks as units of
        reconstruction).
    """
    order = list(model.graph.graph)
    ranges = _joined(order, list(_ranges(order, is_layer)), is_layer)
    return [_stage(order, place, is_layer) for place in ranges]


def _ranges(
    order: Sequence[ir.Node], is_layer: Callable[[ir.Node], bool]
) -> Iterator[tuple[int, int]]:
    """The stretches between single values; long ones are cut in front of each layer."""
    start = 0
    for end in [*_narrow(order, is_layer), len(order)]:
        layers = [i for i in range(start, end) if is_layer(order[i])]
        inner = layers[1:] if len(layers) > _MOST_LAYERS else []
        if layers and any(node.op_type not in _FOLLOWS for node in order[start : layers[0]]):
            inner = [layers[0], *inner]
        for first, last in zip([start, *inner], [*inner, end], strict=True):
            if first < last:
                yield first, last
        start = end


def _narrow(order: Sequence[ir.Node], is_layer: Callable[[ir.Node], bool]) -> Iterator[int]:
    """Behind which nodes, counted from 1, just one value that layers had a part in is needed."""
    last_use = {v: i for i, node in enumerate(order) for v in _reads(node)}
    made: set[ir.Value] = set()  # by layers, or from what they made
    live: set[ir.Value] = set()
    for i, node in enumerate(order):
        live -= {value for value in _reads(node) if last_use[value] == i}
        if is_layer(node) or not made.isdisjoint(_reads(node)):
            made.update(node.outputs)
            live.update(value for value in node.outputs if last_use.get(value, -1) > i)
        if len(live) == 1 and i + 1 < len(order):
            yield i + 1


def _joined(
    order: Sequence[ir.Node],
    ranges: Sequence[tuple[int, int]],
    is_layer: Callable[[ir.Node], bool],
) -> list[tuple[int, int]]:
    """Stretches without a layer, with the one in front where that is all they can go with."""
    found: list[tuple[int, int]] = []
    open_ = False  # whether the last one has a layer, and nothing that ends it
    for first, last in ranges:
        nodes = order[first:last]
        has_layer = any(is_layer(node) for node in nodes)
        follows = all(node.op_type in _FOLLOWS for node in nodes)
        if found and not has_layer and (follows or not open_):
            found[-1] = (found[-1][0], last)
        else:
            found.append((first, last))
            open_ = has_layer
    return found


def _stage(
    order: Sequence[ir.Node], place: tuple[int, int], is_layer: Callable[[ir.Node], bool]
) -> Stage:
    first, last = place
    nodes = order[first:last]
    made = {value for node in nodes for value in node.outputs}
    reads = dict.fromkeys(name(v) for node in nodes for v in _reads(node) if v not in made)
    later = {value for node in order[last:] for value in _reads(node)}
    writes = [
        name(value)
        for node in nodes
        for value in node.outputs
        if value in later or value.is_graph_output()
    ]
    layers = tuple(node for node in nodes if is_layer(node))
    return Stage(tuple(nodes), layers, tuple(reads), tuple(writes))


def _reads(node: ir.Node) -> list[ir.Value]:
    """The values a node reads that are no constants."""
    return [value for value in inputs(node) if const(value) is None]
