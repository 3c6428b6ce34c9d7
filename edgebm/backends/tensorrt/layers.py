"""Checks of products and convolutions: which are worth integers, and what stands around them."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import onnx_ir as ir

from edgebm.backends.tensorrt.reading import (
    DQ,
    FUSED,
    Fault,
    Q,
    Reading,
    adds_constant,
    constant_behind,
    dequantizer,
    is_quantized_layer,
    readers,
    scale_of,
    sizes,
    source,
    stored_type,
)
from edgebm.ir.edit import const, input_at
from edgebm.ir.traits import MATMULS

_FEW = 16
_PACK = 8  # channels that an int8 kernel takes together


def both_operands(reading: Reading) -> Iterator[Fault]:
    """W01."""
    for node in reading.of(*sorted(MATMULS)):
        a, b = (dequantizer(input_at(node, index)) for index in (0, 1))
        if (a is None) == (b is None) or (b is not None and stored_type(b) == ir.DataType.INT4):
            continue  # int4 is for weights alone
        quantized, other = (0, 1) if b is None else (1, 0)
        yield node, f"input {quantized} is quantized, input {other} is not"


def fusions(reading: Reading) -> Iterator[Fault]:
    """W02."""
    for node in reading.of(*sorted(MATMULS)):
        out = node.outputs[0]
        yield from _cut(node, out)
        for user in readers(out):
            if node.op_type == "MatMul" and adds_constant(user):
                yield from _cut(node, user.outputs[0])


def _cut(node: ir.Node, value: ir.Value) -> Iterator[Fault]:
    """Q/DQ on `value`, with something behind it that would be fused into `node`."""
    direct = set(readers(value))
    for user in dict.fromkeys(readers(value, {Q, DQ})):
        fused = user.op_type in FUSED or (node.op_type == "MatMul" and adds_constant(user))
        if fused and user not in direct:
            yield node, f"Q/DQ stands between it and its {user.op_type}"


def batch_norms(reading: Reading) -> Iterator[Fault]:
    """W03."""
    for node in reading.of("BatchNormalization"):
        value = input_at(node, 0)
        layer = None if value is None else source(value).producer()
        if layer is not None and layer.op_type in MATMULS and is_quantized_layer(layer):
            yield node, f"it is not folded into the quantized {layer.op_type} '{layer.name}'"


def weight_scales(reading: Reading) -> Iterator[Fault]:
    """W06."""
    for node in reading.of(*sorted(MATMULS)):
        found = dequantizer(input_at(node, 1))
        stored = None if found is None else const(input_at(found, 0))
        if found is None or constant_behind(input_at(node, 1)) is None:
            continue
        scale = scale_of(found)
        if node.op_type == "Conv" and scale is not None and scale.size == 1:
            yield node, "its weight has one scale for all channels"
        if stored is not None and stored.dtype == np.int8 and (low := int((stored == -128).sum())):
            yield node, f"{low} of its {stored.size} weights are -128"


def small_convolutions(reading: Reading) -> Iterator[Fault]:
    """W07."""
    for node in reading.of("Conv", "ConvTranspose"):
        if is_quantized_layer(node) and (why := unfit_convolution(node)):
            yield node, why


def unfit_convolution(node: ir.Node) -> str:
    """Why a Conv or ConvTranspose, quantized or not, is to stay float; "" if it is not."""
    weight = input_at(node, 1)
    if weight is None:
        return ""
    group = node.attributes.get_int("group", 1)
    if constant_behind(weight) is None:
        return "its weight is computed"
    if node.op_type == "ConvTranspose":
        return f"it is transposed, with {group} groups" if group > 1 else ""
    shape = sizes(weight)
    if not shape or len(shape) < 3 or min(shape[:2]) >= _FEW:
        return ""
    if _pays(shape, group, is_first=_is_first(node)):
        return ""
    return f"{shape[1]} -> {shape[0]} channels, {_kernel(shape)}, group {group}"


def _is_first(node: ir.Node) -> bool:
    """Whether it reads an input of the model, through Q/DQ and casts."""
    value = input_at(node, 0)
    while value is not None:
        value = source(value)
        producer = value.producer()
        if producer is None or producer.op_type != "Cast":
            return value.is_graph_input()
        value = input_at(producer, 0)
    return False


def _pays(shape: tuple[int, ...], group: int, *, is_first: bool) -> bool:
    """Whether a convolution with fewer than 16 channels on a side is worth integers."""
    outs, ins, kernel = shape[0], shape[1], shape[2:]
    if group > 1:
        return outs % _PACK == 0 and min(kernel) >= 3
    packed = outs % _PACK == 0 or ins % _PACK == 0
    return packed and (is_first or max(outs, ins) >= _FEW) and len(set(kernel)) == 1


def _kernel(shape: tuple[int, ...]) -> str:
    return "kernel " + "x".join(map(str, shape[2:]))


def small_products(reading: Reading) -> Iterator[Fault]:
    """W08."""
    for node in reading.of("Gemm", "MatMul"):
        if is_quantized_layer(node) and (why := unfit_product(node)):
            yield node, why


def unfit_product(node: ir.Node) -> str:
    """Why a Gemm or MatMul, quantized or not, is too small for integers; "" if it is not."""
    rows, summands, columns = _extents(node)
    found = [f"{rows} row" * (rows == 1), f"{columns} column" * (columns == 1)]
    if columns is not None and 1 < columns < _FEW:
        found.append(f"{columns} columns")
    if summands is not None and summands < _FEW:
        found.append(f"{summands} summands")
    why = ", ".join(filter(None, found))
    return f"it has {why}" if why else ""


def _extents(node: ir.Node) -> tuple[int | None, int | None, int | None]:
    """Rows, summands and columns of a product; None where an axis is free or not known."""
    left, right = _dims(input_at(node, 0)), _dims(input_at(node, 1))
    if node.attributes.get_int("transA", 0):
        left = left[::-1]
    if node.attributes.get_int("transB", 0):
        right = right[::-1]
    rows = (left[-2] if len(left) > 1 else 1) if left else None
    columns = (right[-1] if len(right) > 1 else 1) if right else None
    summands = left[-1] if left else None
    if summands is None and right:
        summands = right[-2] if len(right) > 1 else right[0]
    return rows, summands, columns


def _dims(value: ir.Value | None) -> list[int | None]:
    if value is None:
        return []
    shape = sizes(value) or source(value).shape or value.shape or ()
    return [dim if isinstance(dim, int) else None for dim in shape]
