"""Blocks that can go as a whole: where a value can take the place of one behind it."""

from __future__ import annotations

import heapq
from collections.abc import Callable, Collection, Iterator
from dataclasses import dataclass

import onnx_ir as ir

from edgebm.ir.edit import const, inputs, name, sole_user, why_not_bypass
from edgebm.ir.model import Model
from edgebm.ir.traits import MATMULS, RECURRENT, is_float
from edgebm.pruning.fork import is_fork

_MOVES = frozenset({"Squeeze", "Unsqueeze", "Reshape", "Transpose"})
_NORM = "LayerNormalization"


@dataclass(frozen=True, slots=True)
class Block:
    """Nodes that go when the value `start` takes the place of the value `end`.

    `name` is that of the node that gives `end`; `nodes` are those that nobody else needs, in the
    order of the graph, at least one of them a layer with a product. Several blocks may share
    nodes: ways to leave out the same layers, of which one can be taken.
    """

    name: str
    start: str
    end: str
    nodes: tuple[str, ...]


def find_blocks(
    model: Model, is_ignored: Callable[[str, str], bool] = lambda name, op_type: False
) -> list[Block]:
    """Every block that can go, in the order of the graph; the graph stays legal without it.

    - One summand of an Add, where the other has the shape of the sum and both come from one
      value. Of a sum of two branches (a shortcut with a convolution) each is a block.
    - Where a LayerNormalization alone reads the sum (post-norm): the same with that norm, and the
      same with the norm in front of the block.
    - Attention and the block behind it, together: a Transformer layer.
    - An LSTM, GRU or RNN whose output has the shape of its input.

    Nothing inside a block is an output of the model or is read elsewhere. Blocks with a node
    that is ignored are left out.
    """
    place = {node: number for number, node in enumerate(model.nodes())}
    found: list[_Span] = []
    attention: dict[ir.Value, list[_Span]] = {}
    for node in place:
        spans: Iterator[_Span] = iter(())
        if node.op_type == "Add":
            spans = _at_sum(node, place)
        elif node.op_type in RECURRENT:
            spans = _at_cell(node, place)
        for span in spans:
            found.append(span)
            if span.attends:
                attention.setdefault(span.last.outputs[0], []).append(span)
                continue
            for before in attention.get(span.start, ()):
                found += _span(before.start, span.last, place)
    blocks = (
        Block(span.last.name or "?", name(span.start), name(span.last.outputs[0]), span.names)
        for span in found
        if not any(is_ignored(node.name or "?", node.op_type) for node in span.nodes)
    )
    return list(dict.fromkeys(blocks))


@dataclass(frozen=True, slots=True)
class _Span:
    """Nodes from `start`, not with it, to `last`."""

    start: ir.Value
    last: ir.Node
    nodes: tuple[ir.Node, ...]

    @property
    def names(self) -> tuple[str, ...]:
        return tuple(node.name or "?" for node in self.nodes)

    @property
    def attends(self) -> bool:
        """Whether it multiplies two computed values."""
        return any(
            node.op_type == "MatMul" and all(const(value) is None for value in node.inputs)
            for node in self.nodes
        )


Places = dict[ir.Node, int]


def _at_sum(add: ir.Node, place: Places) -> Iterator[_Span]:
    for stays in (0, 1):
        start = add.inputs[stays]
        if start is None or start is add.inputs[1 - stays]:
            continue
        for span in _span(start, add, place):
            if not is_fork(start, span.nodes[:-1]):
                continue
            yield span
            norm = sole_user(add.outputs[0])
            if norm is None or norm.op_type != _NORM:
                continue
            yield from _span(start, norm, place)
            before = start.producer()
            if before is not None and before.op_type == _NORM and before.inputs[0] is not None:
                longer = _span(before.inputs[0], add, place)
                yield from (each for each in longer if before in each.nodes)


def _at_cell(cell: ir.Node, place: Places) -> Iterator[_Span]:
    start, last = cell.inputs[0], cell
    assert start is not None
    while last.outputs[0].shape != start.shape:
        reader = sole_user(last.outputs[0])
        if reader is None or reader.op_type not in _MOVES:
            return
        last = reader
    yield from _span(start, last, place)


def _span(start: ir.Value, last: ir.Node, place: Places) -> Iterator[_Span]:
    """What goes when `start` takes the place of the first output of `last`, if it can."""
    end = last.outputs[0]
    if not (is_float(start) and is_float(end)) or const(start) is not None:
        return
    if start.shape is None or start.shape != end.shape or why_not_bypass(last, start):
        return
    if any(_is_read(value) for value in last.outputs[1:]):
        return
    nodes = _only_for(last, start, place)
    if any(node.op_type in MATMULS | RECURRENT for node in nodes):
        yield _Span(start, last, tuple(nodes))


def _only_for(last: ir.Node, start: ir.Value, place: Places) -> list[ir.Node]:
    """The nodes that nobody but `last` needs, in the order of the graph; `last` is the last.

    Those that `start` comes from are kept.
    """
    gone: dict[ir.Node, None] = {}
    seen: set[ir.Node | None] = {None, start.producer()}
    queue = [(-place[last], last)]
    while queue:  # from the back, so that all readers of a node are known when its turn comes
        _, node = heapq.heappop(queue)
        if gone and not all(_is_read_by(value, gone) for value in node.outputs):
            continue
        gone[node] = None
        for value in inputs(node):
            producer = value.producer()
            if producer is not None and producer not in seen:
                seen.add(producer)
                heapq.heappush(queue, (-place[producer], producer))
    return list(gone)[::-1]


def _is_read_by(value: ir.Value, nodes: Collection[ir.Node]) -> bool:
    """Whether nobody else reads it."""
    return not value.is_graph_output() and all(use.node in nodes for use in value.uses())


def _is_read(value: ir.Value) -> bool:
    return value.is_graph_output() or bool(tuple(value.uses()))
