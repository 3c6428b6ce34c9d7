"""What blocks cost: measured on a model of each form, or as multiply-accumulates."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import onnx_ir as ir

from edgebm.exec.collect import Feeds, FloatRunner
from edgebm.ir.canonical import IR_VERSION
from edgebm.ir.edit import const, inputs, name
from edgebm.ir.model import Model
from edgebm.ir.shapes import infer_shapes
from edgebm.pruning.blocks import Block
from edgebm.pruning.choose_blocks import Part
from edgebm.pruning.macs import terms_of, value_shapes
from edgebm.pruning.one_layer import nothing


def parts_of(
    model: Model, blocks: Sequence[Block], feeds: Feeds, time_ms: Callable[[Model], float] | None
) -> list[Part]:
    """Layers that go together, by the blocks that they belong to: none is in two parts.

    The smallest blocks are parts; what a larger one has besides is another.

    Args:
        model: that of the blocks.
        blocks: of `find_blocks`.
        feeds: one sample, which tells the sizes.
        time_ms: the time of a call of a small model, where that can be measured. Each form of
            block is timed once, with the nodes between its layers; what a call of almost nothing
            takes is subtracted.

    Raises:
        BackendFailed: no runtime runs a block alone.
    """
    macs: dict[str, int] = {}
    for term in terms_of(model, (), value_shapes(model, feeds)):
        macs[term.node] = macs.get(term.node, 0) + term.macs
    timer = None if time_ms is None else _Timer(model, blocks, feeds, time_ms)
    parts: list[Part] = []
    for block in sorted(blocks, key=lambda each: len(each.nodes)):
        whole = frozenset(block.nodes)
        known = [part for part in parts if part.nodes <= whole]
        layers = macs.keys() & whole
        fresh = layers.difference(*(part.nodes for part in parts))
        if not fresh:
            continue
        cost = float(sum(macs[layer] for layer in fresh))
        if timer is not None:
            cost = max(0.0, timer.ms(block) - sum(part.cost for part in known))
        parts.append(Part(frozenset(fresh), cost))
    return parts


class _Timer:
    """Times blocks as models of their own."""

    def __init__(
        self,
        model: Model,
        blocks: Sequence[Block],
        feeds: Feeds,
        time_ms: Callable[[Model], float],
    ) -> None:
        self._time_ms = time_ms
        self._graph = model.graph.graph
        self._nodes = {node.name or "?": node for node in model.nodes()}
        self._empty_ms = time_ms(nothing())
        self._known_ms: dict[tuple[object, ...], float] = {}
        read = {name(v) for block in blocks for v in self._reads(block)}
        self._like = FloatRunner(model, sorted(read)).run(feeds)

    def ms(self, block: Block) -> float:
        """Milliseconds of the block without the call."""
        form = self._form(block)
        if form not in self._known_ms:
            self._known_ms[form] = max(0.0, self._time_ms(self._alone(block)) - self._empty_ms)
        return self._known_ms[form]

    def _reads(self, block: Block) -> list[ir.Value]:
        """Computed values that its nodes read and do not make."""
        inside = {self._nodes[label] for label in block.nodes}
        read = (value for node in inside for value in inputs(node) if const(value) is None)
        return sorted({v for v in read if v.producer() not in inside}, key=name)

    def _form(self, block: Block) -> tuple[object, ...]:
        """Equal for blocks that differ in the numbers of their weights only."""
        nodes = [self._nodes[label] for label in block.nodes]
        numbers = {v: n for n, v in enumerate(v for node in nodes for v in node.outputs)}
        form: list[object] = []
        for node in nodes:
            attributes = sorted((key, str(each.value)) for key, each in node.attributes.items())
            read = [self._kind(value, numbers) for value in node.inputs]
            form.append((node.op_type, tuple(attributes), tuple(read)))
        return tuple(form)

    def _kind(self, value: ir.Value | None, numbers: Mapping[ir.Value, int]) -> object:
        if value is None or value in numbers:
            return None if value is None else numbers[value]
        array = const(value)
        if array is None:
            array = self._like[name(value)]
        exact = array.tobytes() if array.dtype.kind in "iub" else b""
        return (array.dtype.str, array.shape, const(value) is None, exact)

    def _alone(self, block: Block) -> Model:
        """The block as a model; sizes and masks that it is given are constants of it."""
        reads = [name(value) for value in self._reads(block)]
        graph = ir.convenience.extract(self._graph, reads, [block.end])
        for value in list(graph.inputs):
            array = self._like[name(value)]
            value.dtype, value.shape = ir.DataType.from_numpy(array.dtype), ir.Shape(array.shape)
            if array.dtype.kind in "iub":
                graph.inputs.remove(value)
                value.const_value = ir.tensor(array, name=name(value))
                graph.register_initializer(value)
        alone = Model(ir.Model(graph, ir_version=IR_VERSION), source=f"block '{block.name}' alone")
        infer_shapes(alone)
        return alone
