"""Where the constant is that a layer adds to each output channel."""

from __future__ import annotations

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray

from edgebm.ir.edit import const, input_at, set_const, sole_user
from edgebm.ir.traits import is_plain_gemm

Place = tuple[ir.Node, int]  # a node, and the index of its input


def bias_place(node: ir.Node) -> Place | None:
    """The input that holds the bias of a Conv, ConvTranspose, Gemm or MatMul; it may be left out.

    For a MatMul that is the other operand of an Add which alone reads it; None where there is
    none, or where what is added is computed.
    """
    place = (node, 2)
    if node.op_type == "MatMul":
        user = sole_user(node.outputs[0])
        if user is None or user.op_type != "Add":
            return None
        place = (user, 1 if user.inputs[0] is node.outputs[0] else 0)
    value = input_at(*place)
    return place if value is None or const(value) is not None else None


def why_no_bias(node: ir.Node, channels: int) -> str:
    """Why `node` cannot take one constant for each of its output channels; "" if it can."""
    if node.op_type == "Gemm" and not is_plain_gemm(node):
        return "a Gemm with alpha, beta or transA set scales its bias"
    place = bias_place(node)
    if place is None:
        return "no constant is added to its output"
    old = const(input_at(*place))
    if old is not None and (
        old.size not in (1, channels) or (old.ndim and old.shape[-1] != old.size)
    ):
        return "what is added to its output is not one constant for each channel"
    return ""


def subtract_from_bias(node: ir.Node, shift: NDArray[np.float64]) -> None:
    """Take `shift`, shape [C], from the bias of a node that `why_no_bias` has nothing against."""
    place = bias_place(node)
    assert place is not None
    owner, index = place
    old = const(input_at(owner, index))
    base = np.zeros(len(shift), np.float32) if old is None else old
    set_const(owner, index, (base - shift).astype(np.float32), suffix="corrected")


def shift_to(node: ir.Node, bias: NDArray[np.float32]) -> NDArray[np.float64]:
    """What `subtract_from_bias` must take from a node's bias, shape [C], so that it is `bias`."""
    place = bias_place(node)
    assert place is not None
    old = const(input_at(*place))
    base = np.zeros(len(bias)) if old is None else old.astype(np.float64).reshape(-1)
    found: NDArray[np.float64] = base - bias.astype(np.float64).reshape(-1)
    return found
