"""Write ONNX Runtime's own product of floats with blocks of packed integers.

`com.microsoft.MatMulNBits` unpacks a block at a time while it multiplies: less memory than
weights that were unpacked when the model was loaded, and several times their speed where few
rows share a weight, since then reading it is what takes the time.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray

from edgebm.ir.edit import (
    Attribute,
    add_const,
    add_node,
    const,
    input_at,
    main_graph,
    remove_dead,
    take_over,
)
from edgebm.ir.model import Model
from edgebm.ir.traits import is_transposed

_DOMAIN = "com.microsoft"
# What its kernels may do to the inputs: round them to 8 bits per block (fast), or nothing.
_ROUNDED, _EXACT = 4, 1
_LARGEST_BLOCK, _SMALLEST_BLOCK = 256, 16
_FOUR_BITS = (ir.DataType.INT4, ir.DataType.UINT4)
_SIGNED = (ir.DataType.INT4, ir.DataType.INT8)


def pack_products(stored: Model, *, wide: bool = True) -> tuple[Model, int]:
    """Replace products with constant integer matrices by `MatMulNBits`.

    Args:
        stored: a graph with weights behind DequantizeLinear, as `store_weights` writes it; it is
            not changed.
        wide: the CPU adds products of two 8-bit numbers without overflow. Without, inputs of
            8-bit weights stay float; those of 4-bit weights are rounded to 8 bits all the same.

    Returns:
        The new graph and how many products were replaced. Those whose input channels no block
        of 16 divides are left as they were.
    """
    out = stored.clone()
    count = sum(_pack(node, wide=wide) for node in list(out.nodes("MatMul", "Gemm")))
    if count:
        out.graph.opset_imports[_DOMAIN] = 1
        remove_dead(out.graph.graph)
    return out, count


@dataclass(frozen=True, slots=True)
class _Matrix:
    """A weight as unsigned integers [N, K], with scale and zero point per block [N, K / size]."""

    integers: NDArray[np.int32]
    scale: NDArray[np.float32]
    zero_point: NDArray[np.int32]
    bits: int
    size: int


def _pack(node: ir.Node, *, wide: bool) -> bool:
    """Replace one product; False where it is none that the operator computes."""
    matrix = _matrix(node)
    if matrix is None or not _is_plain(node):
        return False
    label, graph = node.name or node.op_type, main_graph(node)
    outputs, channels = matrix.integers.shape
    packed = _packed(matrix.integers, matrix.bits)
    packed = packed.reshape(outputs, channels // matrix.size, matrix.size * matrix.bits // 8)
    args: list[ir.Value | None] = [
        node.inputs[0],
        add_const(graph, f"{label}.blocks", packed),
        add_const(graph, f"{label}.blocks.scale", matrix.scale),
        None,
        None,
        input_at(node, 2),
    ]
    if np.any(matrix.zero_point != 2 ** (matrix.bits - 1)):  # which is what none stands for
        zero = _packed(matrix.zero_point, matrix.bits)
        args[3] = add_const(graph, f"{label}.blocks.zero_point", zero)
    while args[-1] is None:
        args.pop()
    attributes: dict[str, Attribute] = {
        "K": channels, "N": outputs, "bits": matrix.bits, "block_size": matrix.size,
        "accuracy_level": _ROUNDED if wide or matrix.bits == 4 else _EXACT,
    }  # fmt: skip
    _replace(node, args, attributes)
    return True


def _matrix(node: ir.Node) -> _Matrix | None:
    """The integer matrix that `node` multiplies by; None if it has none that fits in blocks."""
    value = node.inputs[1]
    source = None if value is None else value.producer()
    if source is None or source.op_type != "DequantizeLinear":
        return None
    stored, scale = const(source.inputs[0]), const(source.inputs[1])
    if stored is None or scale is None or stored.ndim != 2:
        return None
    dtype = source.inputs[0].dtype  # type: ignore[union-attr]
    bits = 4 if dtype in _FOUR_BITS else 8
    shift = 2 ** (bits - 1) if dtype in _SIGNED else 0
    zero = const(input_at(source, 2))
    zero = np.full(scale.shape, shift) if zero is None else zero.astype(np.int32) + shift
    integers = stored.astype(np.int32) + shift
    blocked = source.attributes.get_int("block_size", 0)
    if not is_transposed(node):
        integers = integers.T
        scale, zero = (scale.T, zero.T) if blocked else (scale, zero)
    size = blocked or _block_of(integers.shape[1])
    if not _SMALLEST_BLOCK <= size <= _LARGEST_BLOCK:
        return None
    if not blocked:
        shape = (integers.shape[0], integers.shape[1] // size)
        scale, zero = (np.broadcast_to(a.reshape(-1, 1), shape) for a in (scale, zero))
    return _Matrix(integers, np.ascontiguousarray(scale, np.float32), zero, bits, size)


def _is_plain(node: ir.Node) -> bool:
    """Whether the product is `x @ w`, or `x @ w + b` with one constant number per column."""
    if node.op_type == "MatMul":
        return True
    get = node.attributes.get_float
    bias = const(input_at(node, 2))
    if input_at(node, 2) is not None and (bias is None or bias.ndim != 1 or bias.size == 1):
        return False
    return (
        get("alpha", 1.0) == get("beta", 1.0) == 1.0 and node.attributes.get_int("transA", 0) != 1
    )


def _block_of(channels: int) -> int:
    """The largest block, a power of two, that divides what has one scale per output channel."""
    size = _LARGEST_BLOCK
    while channels % size:
        size //= 2
    return size


def _packed(rows: NDArray[Any], bits: int) -> NDArray[np.uint8]:
    """Integers [N, M] of `bits` as bytes [N, ceil(M * bits / 8)], the first in the low half."""
    rows = np.ascontiguousarray(rows, np.uint8)
    if bits == 8:
        return rows
    if rows.shape[1] % 2:
        rows = np.pad(rows, ((0, 0), (0, 1)))
    return np.asarray(rows[:, 0::2] | (rows[:, 1::2] << 4), np.uint8)


def _replace(node: ir.Node, args: list[ir.Value | None], attributes: dict[str, Attribute]) -> None:
    """Put the packed product in the place of `node`, under its names."""
    label = node.name
    new = add_node(node, "MatMulNBits", args, attributes, label=f"{label}.packed")
    fused = new.producer()
    assert fused is not None
    fused.domain = _DOMAIN
    take_over(node.outputs[0], new)
    node.name, fused.name = f"{label}.replaced", label
