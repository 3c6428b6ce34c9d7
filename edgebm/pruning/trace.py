"""Labels for the positions along every axis of every value, and who makes and takes them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import onnx_ir as ir

from edgebm.ir.dims import Free
from edgebm.ir.edit import const
from edgebm.pruning.group import Index
from edgebm.pruning.labels import Labels
from edgebm.pruning.refine import Size, sizes
from edgebm.pruning.shuffle import Shuffle

Axis = tuple[ir.Value, int]


@dataclass(frozen=True, slots=True)
class Taken:
    """An input of `node` over whose `axis` it sums, averages or normalizes."""

    node: ir.Node
    index: int
    axis: int

    @property
    def value(self) -> ir.Value:
        value = self.node.inputs[self.index]
        assert value is not None
        return value

    @property
    def is_product(self) -> bool:
        """Whether a zero there is as good as nothing."""
        return self.node.op_type in ("MatMul", "Gemm", "Einsum")


class Trace:
    """What the rules of the ops say about one graph.

    An axis of a known size n has n labels. One of a free size that is a multiple of f, such as
    `12*batch`, has f, and `mode` says whether the free part lies outside ("outer": position i
    has label i % f) or inside ("inner"). Axes of size 1 and free ones have none: None.
    """

    def __init__(self, shuffles: dict[ir.Node, Shuffle]) -> None:
        self.labels = Labels()
        self.axes: dict[Axis, Index] = {}
        self.mode: dict[Axis, str] = {}
        self.reads: set[Axis] = set()
        """Axes of constants along which they take units in; along all others they make them."""
        self.read_at: list[tuple[ir.Node, Axis]] = []
        """Layers that take units in with a constant, and the axis of the value they come on."""
        self.made: list[tuple[ir.Node, Axis]] = []
        """Layers that make units, and the axis of the output they are on."""
        self.taken: list[Taken] = []
        self.heads: list[Axis] = []
        """Batch axes of products of two computed values, as attention has."""
        self.shuffles = shuffles
        self._sizes: dict[ir.Value, list[Size]] = {}

    def sizes(self, value: ir.Value) -> list[Size] | None:
        """The shape with free sizes as products; None where the rank is not known."""
        if value not in self._sizes:
            array = const(value)
            shape = list(array.shape) if array is not None else sizes(value)
            if shape is None:
                return None
            self._sizes[value] = shape
        return self._sizes[value]

    def learn(self, value: ir.Value, shape: Sequence[Size]) -> None:
        """Sizes of a value that its own shape does not name, where nothing was said of it yet."""
        own = self.sizes(value)
        for axis, size in enumerate(shape):
            if own is not None and _says_more(size, own[axis]) and (value, axis) not in self.axes:
                own[axis] = size

    def rank(self, value: ir.Value) -> int:
        """Axes of `value`; -1 where they are not known."""
        shape = self.sizes(value)
        return -1 if shape is None else len(shape)

    def of(self, value: ir.Value, axis: int) -> Index | None:
        """Labels along an axis [n], or None (see the class)."""
        key = (value, axis)
        if key not in self.axes:
            shape = self.sizes(value)
            size: Size = 1 if shape is None else shape[axis]
            count = size.factor if isinstance(size, Free) else size
            if count < 2:
                return None
            self.axes[key] = self.labels.fresh(count)
        return self.axes[key]

    def is_free(self, value: ir.Value, axis: int) -> bool:
        """Whether the size is not a number."""
        shape = self.sizes(value)
        return shape is None or isinstance(shape[axis], Free)

    def is_one(self, value: ir.Value, axis: int) -> bool:
        """Whether the size is 1."""
        shape = self.sizes(value)
        return shape is not None and shape[axis] == 1

    def join(self, node: ir.Node, a: Axis, b: Axis) -> None:
        """Position i of `a` and position i of `b` live or go together."""
        if self.is_one(*a) and self.is_one(*b):
            return
        for one, other in ((a, b), (b, a)):
            self._learn_from(one, other)
        first, second = self.of(*a), self.of(*b)
        if first is None or second is None:
            self.freeze(node, [a, b], "the size of one of its axes is not known")
        elif len(first) != len(second) or self.is_free(*a) != self.is_free(*b):
            self.freeze(node, [a, b], "two of its axes that belong together differ in size")
        else:
            if self.is_free(*a):
                modes = {self.mode[key] for key in (a, b) if key in self.mode}
                if len(modes) > 1:
                    self.freeze(node, [a, b], "its free axes hold their units in two ways")
                self.mode.update(dict.fromkeys((a, b), modes.pop() if modes else "outer"))
            self.labels.tie(first, second)

    def _learn_from(self, known: Axis, axis: Axis) -> None:
        """Two axes of one size: what is known of one holds for the other."""
        source, own = self.sizes(known[0]), self.sizes(axis[0])
        if source is not None and own is not None:
            shape = list(own)
            shape[axis[1]] = source[known[1]]
            self.learn(axis[0], shape)

    def tie(self, node: ir.Node, a: Index | None, b: Index | None) -> None:
        """Tie two vectors of labels; one that has no partner is frozen."""
        if a is not None and b is not None and a.shape == b.shape:
            self.labels.tie(a, b)
            return
        for side in (a, b):
            if side is not None:
                self.labels.freeze(
                    side, node.name or "?", "the size of one of its axes is not known"
                )

    def freeze(self, node: ir.Node | None, axes: Sequence[Axis], sentence: str) -> None:
        """No position of these axes may go."""
        for axis in axes:
            if (labels := self.of(*axis)) is not None:
                self.labels.freeze(labels, "" if node is None else node.name or "?", sentence)

    def freeze_values(
        self, node: ir.Node | None, values: Sequence[ir.Value | None], sentence: str
    ) -> None:
        """No position of any axis of these values may go."""
        for value in values:
            if value is not None:
                self.freeze(node, list(self.all_axes(value)), sentence)

    def freeze_node(self, node: ir.Node, sentence: str) -> None:
        """Nothing of what `node` reads and writes may go."""
        self.freeze_values(node, [*node.inputs, *node.outputs], sentence)

    def all_axes(self, value: ir.Value) -> Iterator[Axis]:
        """Every axis of `value`; none where its rank is not known."""
        yield from ((value, axis) for axis in range(self.rank(value)))

    def make(self, node: ir.Node, axis: Axis) -> None:
        """`node` makes the units on `axis` of its output with its weights."""
        self.made.append((node, axis))

    def read(self, node: ir.Node, weight: Axis, source: Axis) -> None:
        """`node` takes in the units on `source` with the constant, along `weight`'s axis."""
        self.reads.add(weight)
        self.read_at.append((node, source))

    def take(self, node: ir.Node, index: int, axis: int) -> None:
        """`node` takes a sum or a statistic over an axis of an input, without a constant."""
        value = node.inputs[index]
        assert value is not None
        if self.is_free(value, axis):
            self.freeze(node, [(value, axis)], "it sums over an axis whose size is not known")
        else:
            self.taken.append(Taken(node, index, axis))

    def roots(self, axis: Axis) -> Index:
        """Roots along an axis that has labels."""
        labels = self.of(*axis)
        return np.empty(0, np.int64) if labels is None else self.labels.roots(labels)


def _says_more(size: Size, own: Size) -> bool:
    """Whether a size is a product with a number in it, and the other one only a name."""
    if not isinstance(size, Free) or not isinstance(own, Free):
        return False
    return own.factor == 1 and size.factor > 1
