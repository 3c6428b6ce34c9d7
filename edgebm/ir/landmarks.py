"""Values of a graph by which a student is held against its teacher."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TypeVar

import onnx_ir as ir

from edgebm.ir.edit import const, inputs, name, sole_user
from edgebm.ir.model import Model
from edgebm.ir.traits import RECURRENT, is_float

_ACTIVATIONS = frozenset(
    {"Relu", "LeakyRelu", "PRelu", "Elu", "Selu", "Gelu", "HardSwish", "Mish", "Clip", "Tanh"}
)
_FEWEST, _MOST = 2, 8
T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class AttentionPlace:
    """One attention by names: its probabilities [N, heads, T, T], its values [N, heads, T, D]."""

    probabilities: str
    values: str


def landmarks(model: Model) -> list[str]:
    """Values between the blocks of a model, in order, graph outputs left out.

    Those are the sums of residual blocks (behind a LayerNormalization that alone reads one, its
    output) and the hidden outputs of recurrent layers, at all steps if there are any. Models that
    have fewer than two of them: the outputs of activations, too.
    """
    found = [value for node in model.nodes() if (value := _block_end(node)) is not None]
    if len(found) < _FEWEST:
        found = [
            value
            for node in model.nodes()
            if (value := _block_end(node) or _activated(node)) is not None
        ]
    return [name(value) for value in found]


def shared_landmarks(teacher: Model, student: Model) -> list[str]:
    """Landmarks that a student made from `teacher` still has.

    Names alone prove little where both come from one exporter: the value must also be computed by
    the same op, and some weights right before it must have the same name.
    """
    theirs, mine = (
        {v.name: v for node in model.nodes() for v in node.outputs} for model in (teacher, student)
    )
    return [
        label
        for label in landmarks(teacher)
        if (other := mine.get(label)) is not None and _same_place(theirs[label], other)
    ]


def _same_place(a: ir.Value, b: ir.Value) -> bool:
    x, y = a.producer(), b.producer()
    assert x is not None
    assert y is not None
    return x.op_type == y.op_type and bool(_weights_before(x) & _weights_before(y))


def _weights_before(node: ir.Node) -> set[str]:
    """Names of the constants of more than one number that are met first on the way back."""
    found: set[str] = set()
    seen, left = {node}, [node]
    while left:
        each = left.pop()
        weights = {name(v) for v in inputs(each) if v.const_value is not None and _is_weight(v)}
        found |= weights
        if weights:
            continue
        producers = (value.producer() for value in inputs(each))
        fresh = {p for p in producers if p is not None} - seen
        seen |= fresh
        left += fresh
    return found


def _is_weight(value: ir.Value) -> bool:
    array = const(value)
    return array is not None and array.size > 1 and is_float(value)


def thinned(names: Sequence[T]) -> list[T]:
    """A few of `names`: every second, or fewer, always with the last one; all of up to three."""
    if len(names) <= _FEWEST + 1:
        return list(names)
    stride = max(2, -(-len(names) // _MOST))
    return list(names[::-1][::stride][::-1])


def attentions(model: Model) -> list[AttentionPlace]:
    """Every softmax of rank 4 whose result is multiplied with values, in order."""
    found = []
    for node in model.nodes("Softmax"):
        out = node.outputs[0]
        if out.shape is None or len(out.shape) != 4:
            continue
        reader = sole_user(out)
        if reader is None or reader.op_type != "MatMul" or reader.inputs[0] is not out:
            continue
        values = reader.inputs[1]
        if values is not None and const(values) is None:
            found.append(AttentionPlace(name(out), name(values)))
    return found


def _block_end(node: ir.Node) -> ir.Value | None:
    out = node.outputs[0]
    if node.op_type in RECURRENT:
        named = [v for v in node.outputs[:2] if v.name and not v.is_graph_output()]
        return named[0] if named else None
    if node.op_type != "Add" or not _is_residual(node):
        return None
    reader = sole_user(out)
    if reader is not None and reader.op_type == "LayerNormalization":
        out = reader.outputs[0]
    return None if out.is_graph_output() else out


def _activated(node: ir.Node) -> ir.Value | None:
    out = node.outputs[0]
    return out if node.op_type in _ACTIVATIONS and not out.is_graph_output() else None


def _is_residual(node: ir.Node) -> bool:
    """Whether one of the terms is computed from the other."""
    a, b = node.inputs
    if a is None or b is None or not (is_float(a) and is_float(b)):
        return False
    if const(a) is not None or const(b) is not None:
        return False
    return _depends(a, b) or _depends(b, a)


def _depends(value: ir.Value, on: ir.Value) -> bool:
    seen: set[ir.Node] = set()
    left = [value]
    while left:
        each = left.pop()
        if each is on:
            return True
        node = each.producer()
        if node is not None and node not in seen:
            seen.add(node)
            left += [read for read in node.inputs if read is not None]
    return False
