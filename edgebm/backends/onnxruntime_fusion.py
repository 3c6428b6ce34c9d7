"""Write ONNX Runtime's own integer products where its fusions would miss them.

Given Q/DQ around a MatMul whose output stays float, ONNX Runtime may first merge the MatMul
with the Add behind it into a Gemm and then no longer see the pattern: the product runs in
float, slower than before. `com.microsoft` ops say directly what is meant.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray

from edgebm.ir.edit import (
    add_const,
    const,
    dequantized,
    free_name,
    input_at,
    remove_dead,
    sole_user,
    take_over,
)
from edgebm.ir.model import Model
from edgebm.ir.traits import is_transposed

_DOMAIN = "com.microsoft"


@dataclass(frozen=True, slots=True)
class _Product:
    """A quantized product: integers and scales of both sides, and a float bias or None."""

    node: ir.Node
    last: ir.Node
    quantized: ir.Node
    weight: NDArray[np.int8]
    scale: NDArray[np.float32]
    bias: NDArray[np.float32] | None


def fuse_products(lowered: Model, *, dynamic: bool) -> tuple[Model, int]:
    """Replace Q/DQ products with constant weights by one op each.

    Args:
        lowered: a Q/DQ graph; it is not changed.
        dynamic: quantize the left operand by its own range at each call
            (`DynamicQuantizeMatMul`) in place of its calibrated one (`MatMulIntegerToFloat`).

    Returns:
        The new graph and how many products were replaced.
    """
    out = lowered.clone()
    graph = out.graph.graph
    found = [p for p in map(_match, out.nodes("MatMul", "Gemm")) if p is not None]
    for product in found:
        _replace(graph, product, dynamic=dynamic)
    if found:
        out.graph.opset_imports[_DOMAIN] = 1
        remove_dead(graph)
    return out, len(found)


def _match(node: ir.Node) -> _Product | None:
    """The product at `node` if both operands are dequantized and the right one is constant."""
    left, right = _dequantized(node.inputs[0]), _dequantized(node.inputs[1])
    if left is None or right is None or left.inputs[0] is None:
        return None
    quantized = left.inputs[0].producer()
    weight, scale = const(right.inputs[0]), const(right.inputs[1])
    if weight is None or scale is None or weight.ndim != 2 or quantized is None:
        return None
    if quantized.op_type != "QuantizeLinear":
        return None
    if is_transposed(node):
        weight = weight.T
    scale = np.broadcast_to(scale.reshape(-1), weight.shape[1:]).astype(np.float32)
    last, bias = _bias(node, weight.shape[1])
    if bias is None and node.op_type == "Gemm" and input_at(node, 2) is not None:
        return None  # a bias that is computed, or another one for each row
    return _Product(node, last, quantized, np.ascontiguousarray(weight), scale, bias)


def _dequantized(value: ir.Value | None) -> ir.Node | None:
    producer = None if value is None else value.producer()
    return producer if producer is not None and producer.op_type == "DequantizeLinear" else None


def _bias(node: ir.Node, width: int) -> tuple[ir.Node, NDArray[np.float32] | None]:
    """The last node of the product and the bias [N] it adds, if it adds a constant one."""
    if node.op_type == "Gemm":
        return node, _float_bias(node, width)
    user = sole_user(node.outputs[0])
    if user is None or user.op_type != "Add":
        return node, None
    other = user.inputs[1] if user.inputs[0] is node.outputs[0] else user.inputs[0]
    bias = const(other)
    shape = node.outputs[0].shape
    if bias is None or bias.size != width or bias.shape[-1:] != (width,):
        return node, None
    if bias.ndim > (1 if shape is None else len(shape)):
        return node, None
    return user, np.asarray(bias.reshape(-1), np.float32)


def _float_bias(gemm: ir.Node, width: int) -> NDArray[np.float32] | None:
    """The bias as [N]; None if there is none, or none that is the same for every row."""
    value = input_at(gemm, 2)
    stored = dequantized(value)
    bias = const(value) if stored is None else stored
    if bias is None or bias.size not in (1, width) or bias.shape[-1:] not in ((), (1,), (width,)):
        return None
    return np.asarray(np.broadcast_to(bias.reshape(-1), (width,)), np.float32)


def _replace(graph: ir.Graph, product: _Product, *, dynamic: bool) -> None:
    label = product.node.name or product.node.op_type
    weight = _constant(graph, f"{label}.weight.q", product.weight)
    scale = _constant(graph, f"{label}.weight.scale", product.scale)
    bias = None if product.bias is None else _constant(graph, f"{label}.bias", product.bias)
    quantized = product.quantized
    inputs: list[ir.Value | None]
    if dynamic:
        op, inputs = "DynamicQuantizeMatMul", [quantized.inputs[0], weight, scale, None, bias]
    else:
        op = "MatMulIntegerToFloat"
        ours, zero = quantized.inputs[1], quantized.inputs[2]
        inputs = [quantized.outputs[0], weight, ours, scale, zero, None, bias]
    while inputs[-1] is None:
        inputs.pop()
    fused = ir.node(op, inputs, domain=_DOMAIN, name=label)
    graph.insert_before(product.last, fused)
    take_over(product.last.outputs[0], fused.outputs[0])
    product.node.name = f"{label}.replaced"  # it is dead now, and its name is taken over


def _constant(graph: ir.Graph, label: str, array: NDArray[Any]) -> ir.Value:
    return add_const(graph, free_name(graph, label), array)
