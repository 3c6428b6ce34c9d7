"""Facts about ONNX ops that hold on every engine: where the weight is, which axis is output.

What an engine *can* do with an op is a dialect's affair (`backends/dialects.py`).
"""

from __future__ import annotations

from collections.abc import Iterator

import onnx_ir as ir

from edgebm.ir.edit import const

MATMULS = frozenset({"Conv", "ConvTranspose", "Gemm", "MatMul"})
RECURRENT = frozenset({"LSTM", "GRU", "RNN"})
ACTIVATIONS = frozenset({"Relu", "Clip"})
# They hand on values of their first input as they are: rounding before is rounding behind.
MOVES = frozenset(
    {"Reshape", "Flatten", "Transpose", "Squeeze", "Unsqueeze", "MaxPool", "Slice", "Split"}
)


def weight_index(node: ir.Node) -> int | None:
    """Which input of `node` is a constant weight worth quantizing, or None.

    Conv, ConvTranspose, Gemm and MatMul with a constant right operand; Gather from a
    constant float table (an embedding) has it at 0.
    """
    if node.op_type in MATMULS and is_float_const(node.inputs[1]):
        return 1
    if node.op_type == "Gather" and is_table(node):
        return 0
    return None


def is_float_const(value: ir.Value | None) -> bool:
    """True for a constant of a floating type."""
    return value is not None and value.const_value is not None and is_float(value)


def is_float(value: ir.Value | None) -> bool:
    """True for a value of a floating type; False when its type is not known."""
    return value is not None and value.dtype is not None and value.dtype.is_floating_point()


def is_table(node: ir.Node) -> bool:
    """True for a Gather that picks rows of a constant float matrix by computed ids."""
    table, ids = node.inputs[0], node.inputs[1]
    if not is_float_const(table) or const(ids) is not None:
        return False
    array = const(table)
    return array is not None and array.ndim == 2 and node.attributes.get_int("axis", 0) == 0


def channel_axis(node: ir.Node) -> int | None:
    """The axis of the weight that runs over output channels; None where there is no one axis.

    Conv [O, I/g, ...] has 0; ConvTranspose [I, O/g, ...] has 1 unless grouped, where one axis
    does not tell the groups apart; Gemm by transB; MatMul [..., K, N] the last; an embedding
    table its rows.
    """
    if node.op_type == "ConvTranspose":
        return 1 if node.attributes.get_int("group", 1) == 1 else None
    if node.op_type == "Gemm":
        return 0 if node.attributes.get_int("transB", 0) == 1 else 1
    if node.op_type == "MatMul":
        weight = const(node.inputs[1])
        return None if weight is None or weight.ndim < 2 else weight.ndim - 1
    return 0


def weights_of(node: ir.Node) -> Iterator[tuple[int, int | None]]:
    """Index and channel axis of each constant float weight of `node` worth quantizing."""
    if node.op_type in RECURRENT:
        # W and R [directions, gates * hidden, inputs]: one scale per row, for both directions.
        yield from ((i, 1) for i in (1, 2) if is_float_const(node.inputs[i]))
    elif (index := weight_index(node)) is not None:
        yield index, channel_axis(node)


def is_plain_gemm(node: ir.Node) -> bool:
    """True where a Gemm is a product and a bias: no factor before either, no transposed input."""
    factors = (node.attributes.get_float(key, 1.0) for key in ("alpha", "beta"))
    return all(f == 1.0 for f in factors) and node.attributes.get_int("transA", 0) == 0


def is_transposed(node: ir.Node) -> bool:
    """True where a Gemm has its matrix as [N, K]; False for one with [K, N], and for a MatMul."""
    return node.op_type == "Gemm" and node.attributes.get_int("transB", 0) == 1


def activation_inputs(node: ir.Node) -> list[int]:
    """Indices of the computed float operands of a matrix product or convolution.

    A bias (input 2 of Conv, ConvTranspose, Gemm) is not one of them.
    """
    return [
        i for i, value in enumerate(node.inputs[:2]) if is_float(value) and const(value) is None
    ]
