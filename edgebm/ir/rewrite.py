"""The small moves opset adapters are made of. They also work inside branches and functions."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import onnx_ir as ir

from edgebm.ir.edit import Array, add_node, const, input_at


class CannotConvert(Exception):
    """Why a node has no equal in the internal opset."""


def constant(before: ir.Node, array: Array) -> ir.Value:
    """A `Constant` node in front of `before`: unlike an initializer it fits every graph."""
    assert before.graph is not None
    node = ir.node("Constant", [], {"value": ir.tensor(array)})
    before.graph.insert_before(before, node)
    value = node.outputs[0]
    value.dtype, value.shape = ir.DataType.from_numpy(array.dtype), ir.Shape(array.shape)
    return value


def known(value: ir.Value | None) -> Array | None:
    """The value as an array if it is an initializer or comes from a `Constant` node."""
    direct = const(value)
    if direct is not None or value is None:
        return direct
    producer = value.producer()
    if producer is None or producer.op_type != "Constant":
        return None
    attribute = producer.attributes.get("value")
    return None if attribute is None else attribute.as_tensor().numpy()


def take(node: ir.Node, attribute: str) -> Any:
    """Remove an attribute and return its value, or None if the node does not have it."""
    found = node.attributes.pop(attribute, None)
    if found is None:
        return None
    if isinstance(found, ir.Attr) and found.is_ref():
        raise CannotConvert(f"its attribute '{attribute}' is a parameter of a function")
    return found.value


def put(node: ir.Node, attribute: str, value: int | float | str | Sequence[int]) -> None:
    """Set an attribute."""
    node.attributes[attribute] = ir.convenience.convert_attribute(attribute, value)


def put_input(node: ir.Node, index: int, value: ir.Value | None) -> None:
    """Set input `index`; inputs between the last one and it are left out."""
    if index >= len(node.inputs):
        node.resize_inputs(index + 1)
    node.replace_input_with(index, value)


def attribute_to_input(node: ir.Node, attribute: str, index: int) -> None:
    """Turn an integer-list attribute into the int64 input `index`, if it is there."""
    found = take(node, attribute)
    if found is not None:
        array = np.asarray(found, np.int64).reshape(-1)
        put_input(node, index, constant(node, array))


def rank(value: ir.Value | None) -> int | None:
    """Number of dimensions, if known."""
    return None if value is None or value.shape is None else len(value.shape)


def float_dtype(node: ir.Node) -> np.dtype[Any]:
    """The numpy dtype of the node's first input (float32 where it is not known)."""
    value = input_at(node, 0)
    if value is None or value.dtype is None:
        return np.dtype(np.float32)
    return np.dtype(value.dtype.numpy())


def swap_output(
    node: ir.Node,
    op_type: str,
    extra: Sequence[ir.Value],
    attributes: dict[str, Any] | None = None,
    *,
    index: int = 0,
) -> ir.Node:
    """Put a new node behind `node` that takes over output `index` and its readers.

    `extra` are further inputs of the new node.
    """
    assert node.graph is not None
    out = node.outputs[index]
    after = ir.node(op_type, [], attributes)
    fresh = after.outputs[0]
    fresh.type, fresh.shape = out.type, out.shape
    ir.convenience.replace_all_uses_with(out, fresh, replace_graph_outputs=True)
    after.resize_inputs(1 + len(extra))
    for place, value in enumerate([out, *extra]):
        after.replace_input_with(place, value)
    fresh.name, out.name = out.name, None
    out.shape = None
    node.graph.insert_after(node, after)
    return after


def shape_of(before: ir.Node, value: ir.Value) -> ir.Value:
    """The shape of `value` as a computed tensor."""
    return add_node(before, "Shape", [value])
