"""Which layers make the channels of a value, and which sum over them."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import onnx_ir as ir

from edgebm.ir.edit import Array, const, input_at
from edgebm.ir.traits import MATMULS, channel_axis


@dataclass(frozen=True, slots=True)
class Channels:
    """Where the channels of a value lie: index i of `axis` belongs to channel i // repeat."""

    axis: int
    repeat: int = 1


def rank(value: ir.Value) -> int:
    """Axes of `value`; 0 where they are not known."""
    return 0 if value.shape is None else len(value.shape)


def output_axis(node: ir.Node) -> int:
    """The axis of the layer's output that runs over its channels."""
    return -1 if node.op_type in {"Gemm", "MatMul"} else 1


def output_channels(node: ir.Node, weight: Array) -> int:
    """How many channels a layer with this weight gives."""
    if node.op_type == "ConvTranspose":
        return int(weight.shape[1]) * node.attributes.get_int("group", 1)
    axis = channel_axis(node)
    assert axis is not None
    return int(weight.shape[axis])


def writes(node: ir.Node) -> bool:
    """Whether the layer's output channels can be rescaled in its constants."""
    if node.op_type == "BatchNormalization":
        scale, shift = const(node.inputs[1]), const(node.inputs[2])
        return scale is not None and shift is not None and scale.dtype == np.float32
    if node.op_type not in MATMULS or not _has_matrix(node):
        return False
    if node.op_type == "ConvTranspose" and node.attributes.get_int("group", 1) != 1:
        return False
    bias = None if node.op_type == "MatMul" else input_at(node, 2)
    return bias is None or const(bias) is not None


def reads(node: ir.Node, where: Channels) -> bool:
    """Whether `node` sums over the channels that lie at `where` in its input 0."""
    if node.op_type not in MATMULS or not _has_matrix(node):
        return False
    value = node.inputs[0]
    assert value is not None
    if node.op_type in {"Conv", "ConvTranspose"}:
        return where == Channels(1)
    if node.op_type == "Gemm":
        return where.axis == 1 and node.attributes.get_int("transA", 0) == 0
    return where.axis == rank(value) - 1 and where.axis > 0


def _has_matrix(node: ir.Node) -> bool:
    """Whether input 1 is a constant float32 array of two axes or more, two for products."""
    weight = const(node.inputs[1])
    if weight is None or weight.dtype != np.float32 or weight.ndim < 2:
        return False
    return weight.ndim == 2 or node.op_type in {"Conv", "ConvTranspose"}
