"""Arithmetic on shapes with free axes, so that exporters' shape chains fold.

A traced `x.view(x.shape[0], 12, 64)` becomes Shape, Gather, Concat and Reshape nodes. Here a
small integer tensor is an object array whose elements are numbers or `Free` sizes; the usual
numpy indexing then does what the nodes do.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import onnx_ir as ir

from edgebm.ir.edit import Array, const, input_at

_MAX_ELEMENTS = 64


@dataclass(frozen=True, slots=True)
class Free:
    """A size that is only known when the model runs: `factor` times the sizes named."""

    names: tuple[str, ...]
    factor: int = 1

    def __mul__(self, other: object) -> Free | int:
        if isinstance(other, Free):
            return Free(tuple(sorted(self.names + other.names)), self.factor * other.factor)
        if not isinstance(other, int | np.integer):
            return NotImplemented
        return Free(self.names, self.factor * int(other)) if other else 0

    __rmul__ = __mul__

    def __floordiv__(self, other: object) -> Free:
        if isinstance(other, int | np.integer) and other > 0 and self.factor % int(other) == 0:
            return Free(self.names, self.factor // int(other))
        raise _NotKnown


class _NotKnown(Exception):
    """The result is not a product of sizes."""


Known = dict[ir.Value, Array]


def shape_array(value: ir.Value | None) -> Array | None:
    """The shape of `value` as an object array, or None if not even its rank is known."""
    if value is None or value.shape is None:
        return None
    dims = [
        dim if isinstance(dim, int) else _free(dim.value or f"?{value.name}.{axis}")
        for axis, dim in enumerate(value.shape)
    ]
    return _objects(dims)


def _free(text: object) -> Free:
    """A named size; exporters write products as `2*batch`."""
    names, factor = [], 1
    for part in str(text).split("*"):
        word = part.strip()
        if word.isdecimal():
            factor *= int(word)
        elif word.isidentifier():
            names.append(word)
        else:
            return Free((str(text),))
    return Free(tuple(sorted(names)), factor) if names and factor else Free((str(text),))


def _objects(dims: list[Any]) -> Array:
    array = np.empty(len(dims), object)
    array[:] = dims
    return array


def is_number(array: Array) -> bool:
    """Whether no element is free."""
    return not any(isinstance(element, Free) for element in array.reshape(-1))


def propagate(node: ir.Node, known: Known) -> Array | None:
    """The node's output, where it is arithmetic on small integer tensors; else None.

    `known` holds the outputs found before, by value.
    """
    rule = _RULES.get(node.op_type)
    if rule is None or len(node.outputs) != 1:
        return None
    if node.op_type in ("Shape", "Size"):
        args: list[Array | None] = [shape_array(input_at(node, 0))]
    else:
        args = [_lookup(value, known) for value in node.inputs]
    if not args or any(
        found is None and value is not None for found, value in zip(args, node.inputs, strict=True)
    ):
        return None
    try:
        return _array(rule(node, *args))
    except (_NotKnown, IndexError, ValueError, TypeError, ZeroDivisionError):
        return None  # not arithmetic on sizes: the node stays as it is


def _array(result: Any) -> Array:
    if isinstance(result, np.ndarray):
        return result
    array = np.empty((), object)
    array[()] = result
    return array


def _lookup(value: ir.Value | None, known: Known) -> Array | None:
    if value is None:
        return None
    if value in known:
        return known[value]
    array = const(value)
    if array is None or array.size > _MAX_ELEMENTS or array.dtype.kind not in "iub":
        return None
    return array.astype(object)


def _ints(array: Array) -> list[int]:
    if not is_number(array):
        raise _NotKnown
    return [int(element) for element in array.reshape(-1)]


def _shape(node: ir.Node, shape: Array) -> Array:
    start, end = node.attributes.get_int("start", 0), node.attributes.get_int("end", None)
    return shape[start:end]


def _size(_: ir.Node, shape: Array) -> Any:
    product: Any = 1
    for dim in shape:
        product = product * dim
    return product


def _gather(node: ir.Node, data: Array, indices: Array) -> Array:
    if node.attributes.get_int("axis", 0) not in (0, -data.ndim):
        raise _NotKnown
    picked: Array = data[np.asarray(_ints(indices), np.int64).reshape(indices.shape)]
    return picked


def _slice(
    _: ir.Node,
    data: Array,
    starts: Array,
    ends: Array,
    axes: Array | None = None,
    steps: Array | None = None,
) -> Array:
    if data.ndim != 1 or (axes is not None and _ints(axes) not in ([0], [-1])):
        raise _NotKnown
    (start,), (end,) = _ints(starts), _ints(ends)
    (step,) = [1] if steps is None else _ints(steps)
    if step <= 0:
        raise _NotKnown
    return data[start:end:step]


def _concat(_: ir.Node, *parts: Array) -> Array:
    return np.concatenate(parts)


def _unsqueeze(_: ir.Node, data: Array, axes: Array) -> Array:
    return np.expand_dims(data, tuple(_ints(axes)))


def _squeeze(_: ir.Node, data: Array, axes: Array | None = None) -> Array:
    return np.squeeze(data, None if axes is None else tuple(_ints(axes)))


def _reshape(_: ir.Node, data: Array, shape: Array) -> Array:
    return data.reshape(_ints(shape))


def _cast(node: ir.Node, data: Array) -> Array:
    if node.attributes.get_int("to", 0) not in (ir.DataType.INT64, ir.DataType.INT32):
        raise _NotKnown
    return data


def _identity(_: ir.Node, data: Array) -> Array:
    return data


def _mul(_: ir.Node, a: Array, b: Array) -> Any:
    return a * b


def _div(_: ir.Node, a: Array, b: Array) -> Any:
    if not is_number(b) or any(element <= 0 for element in _ints(b)):
        raise _NotKnown
    if is_number(a) and any(element < 0 for element in _ints(a)):
        raise _NotKnown
    return a // b


def _add(_: ir.Node, a: Array, b: Array) -> Any:
    _ints(a), _ints(b)
    return a + b


def _sub(_: ir.Node, a: Array, b: Array) -> Any:
    _ints(a), _ints(b)
    return a - b


def _equal(_: ir.Node, a: Array, b: Array) -> Array:
    return np.frompyfunc(_same, 2, 1)(a, b)  # type: ignore[no-any-return]


def _same(a: Any, b: Any) -> bool:
    if isinstance(a, Free) and isinstance(b, Free) and a == b:
        return True
    sizes = [x for x in (a, b) if isinstance(x, Free)]
    numbers = [x for x in (a, b) if not isinstance(x, Free)]
    if not sizes:
        return bool(a == b)
    if numbers and numbers[0] < 0:
        return False  # a size is never negative
    raise _NotKnown


def _where(_: ir.Node, condition: Array, a: Array, b: Array) -> Array:
    flags = np.asarray(_ints(condition), bool).reshape(condition.shape)
    return np.where(flags, a, b)


_RULES: dict[str, Callable[..., Any]] = {
    "Shape": _shape,
    "Size": _size,
    "Gather": _gather,
    "Slice": _slice,
    "Concat": _concat,
    "Unsqueeze": _unsqueeze,
    "Squeeze": _squeeze,
    "Reshape": _reshape,
    "Cast": _cast,
    "Identity": _identity,
    "Mul": _mul,
    "Div": _div,
    "Add": _add,
    "Sub": _sub,
    "Equal": _equal,
    "Where": _where,
}
