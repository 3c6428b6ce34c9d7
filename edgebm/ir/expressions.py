"""Values as sums of gates times affine maps, whatever nodes they are written with.

`(1 - z) * n + z * h` and `n + z * (h - n)` are the same polynomial in the gates z and n, and
`[x, h] W + b` the same map as `x W1 + h W2 + b`: so a recurrent cell is found from what it
computes, not from the order of its nodes.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import onnx_ir as ir

from edgebm.ir.affine import (
    NO_GATES,
    Expression,
    Form,
    Gate,
    NotAffine,
    added,
    pruned,
    summed,
    times,
)
from edgebm.ir.edit import Array, const, input_at
from edgebm.ir.parts import Part, joined, step_back, whole
from edgebm.ir.simplify import is_zeros

GATES = ("Sigmoid", "Tanh", "Relu")
_DEEPEST = 40


class Reader:
    """Reads values of one graph, in the order of its nodes."""

    def __init__(self) -> None:
        self._ends: set[ir.Value] = set()
        self.known: dict[Part, ir.Value] = {}
        """A value of the graph that is exactly this part."""
        self._read: dict[Part, Expression] = {}
        self._depth = 0

    def end(self, value: ir.Value | None) -> None:
        """Never look behind `value` again: it is a state."""
        if value is not None:
            self._ends.add(value)
            for part in [part for part in self._read if part.value is value]:
                del self._read[part]

    def origin(self, part: Part) -> Part:
        """The part by its first source, back through what only cuts and joins."""
        first = part
        while part.value not in self._ends and const(part.value) is None:
            earlier = step_back(part)
            if earlier is None:
                break
            part = earlier
        if first.is_whole:
            self.known.setdefault(part, first.value)
        return part

    def read(self, part: Part) -> Expression:
        """The expression of some channels; empty for zeros."""
        part = self.origin(part)
        if part not in self._read:
            self._read[part] = self._expression(part)
        return self._read[part]

    def _expression(self, part: Part) -> Expression:
        array = const(part.value)
        if array is not None:
            row = _row(array, part)
            return self._itself(part) if row is None else pruned({NO_GATES: Form(row)})
        if is_zeros(part.value):
            return {}
        node = part.value.producer()
        if node is None or part.value in self._ends:
            return self._itself(part)
        if self._depth == _DEEPEST:  # a cell is never so deep
            return self._itself(part)
        self._depth += 1
        try:
            return pruned(self._computed(node, part))
        except NotAffine:
            return self._itself(part)
        finally:
            self._depth -= 1

    def _itself(self, part: Part) -> Expression:
        zeros, ones = np.zeros(part.width, np.float32), np.ones(part.width, np.float32)
        return {NO_GATES: Form(zeros, direct={part: ones})}

    def _computed(self, node: ir.Node, part: Part) -> Expression:
        if node.op_type in GATES:
            gate = Gate(node.op_type, self.origin(_same(node, 0, part)))
            return {frozenset({gate}): Form(np.ones(part.width, np.float32))}
        if node.op_type in ("Add", "Sub"):
            sign = 1.0 if node.op_type == "Add" else -1.0
            left, right = (self.read(_same(node, index, part)) for index in (0, 1))
            return added(left, right, np.float32(sign))
        if node.op_type == "Mul":
            return times(*(self.read(_same(node, index, part)) for index in (0, 1)))
        if node.op_type == "Neg":
            return added({}, self.read(_same(node, 0, part)), np.float32(-1))
        if node.op_type == "MatMul":
            return {NO_GATES: self._product(node, part, const(node.inputs[1]))}
        if node.op_type == "Gemm":
            return self._gemm(node, part)
        raise NotAffine

    def _gemm(self, node: ir.Node, part: Part) -> Expression:
        attributes, weight = node.attributes, const(node.inputs[1])
        if attributes.get_int("transA", 0) or weight is None:
            raise NotAffine
        if attributes.get_int("transB", 0):
            weight = weight.T
        alpha, beta = (np.float32(attributes.get_float(key, 1.0)) for key in ("alpha", "beta"))
        product = self._product(node, part, weight)
        found: Expression = {NO_GATES: product if alpha == 1 else product.scaled(alpha)}
        if input_at(node, 2) is not None:
            found = added(found, self.read(_same(node, 2, part)), beta)
        return found

    def _product(self, node: ir.Node, part: Part, weight: Array | None) -> Form:
        """Some columns of an input times a constant matrix [I, O]."""
        source = node.inputs[0]
        given = whole(source) if source is not None else None
        if weight is None or weight.ndim != 2 or given is None or weight.dtype != np.float32:
            raise NotAffine
        form = Form(np.zeros(part.width, np.float32))
        given = Part(given.value, given.lo, given.hi, part.at)
        for start, piece in self._pieces(given):
            rows = weight[start : start + piece.width, part.lo : part.hi]
            form.products = summed(form.products, {piece: rows})
        return form

    def _pieces(self, part: Part) -> Iterator[tuple[int, Part]]:
        """The values that a product's input joins, with the row of the matrix each begins at."""
        part = self.origin(part)
        pieces = None if part.value in self._ends else joined(part)
        if pieces is None:
            if not self._is_nothing(part):
                yield 0, part
            return
        for start, piece in pieces:
            lo, hi = max(part.lo, start), min(part.hi, start + piece.width)
            if lo < hi:
                cut = Part(piece.value, lo - start, hi - start, piece.at)
                for row, found in self._pieces(cut):
                    yield lo - part.lo + row, found

    def _is_nothing(self, part: Part) -> bool:
        """Zeros, or a gate times zeros: the first step of a loop."""
        if is_zeros(part.value):
            return True
        node = part.value.producer()
        return node is not None and node.op_type == "Mul" and not self.read(part)


def _same(node: ir.Node, index: int, part: Part) -> Part:
    """The same channels of an operand that is not broadcast; constants may be."""
    value, out = input_at(node, index), part.value
    if value is None:
        raise NotAffine
    if const(value) is None and (value.shape is None or not _equal(value.shape, out.shape)):
        raise NotAffine
    return Part(value, part.lo, part.hi, part.at)


def _equal(a: ir.Shape, b: ir.Shape | None) -> bool:
    """Whether two shapes are known to be the same."""
    if b is None or len(a) != len(b):
        return False
    return all(
        x == y and (isinstance(x, int) or x.value is not None) for x, y in zip(a, b, strict=True)
    )


def _row(array: Array, part: Part) -> Array | None:
    """The one row [K] that a constant adds everywhere, or None where its rows differ."""
    if array.dtype != np.float32:
        return None
    if array.ndim == 0 or array.shape[-1] == 1:
        row = np.unique(array)
        return np.full(part.width, row[0]) if row.size == 1 else None
    if array.shape[-1] < part.hi:
        return None
    rows = array.reshape(-1, array.shape[-1])[:, part.lo : part.hi]
    return rows[0] if len(rows) and (rows == rows[0]).all() else None
