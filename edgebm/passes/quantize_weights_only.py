"""Decide how weights are stored as integers that are multiplied in float."""

from __future__ import annotations

from typing import ClassVar, Literal

import numpy as np
import onnx_ir as ir

from edgebm.errors import PassError
from edgebm.ir.annotate import quant_of, set_quant
from edgebm.ir.edit import Array, const, set_const
from edgebm.ir.model import Model
from edgebm.ir.traits import channel_axis, weights_of
from edgebm.passes.base import Context, step
from edgebm.quant.params import QuantParams, block_params, symmetric_params

_SMALL = 1024  # elements; below, integers save less than their scales and nodes take
_SMALLEST_BLOCK = 16


@step
class QuantizeWeightsOnly:
    """Weights as integers, activations in float: a small file, and no samples are needed.

    Matrices of MatMul and Gemm take `bits`, with a scale and a zero point for each block of
    `block_size` input channels (halved until it divides them). Four-bit blocks take the range
    with the least squared error. What no runtime multiplies from four bits takes eight, one
    scale per output channel: convolutions, recurrent layers, stacks of matrices, embedding
    tables (one scale per row) and matrices that no block of 16 divides.

    Source:
        Dettmers et al. 2023, "QLoRA", arXiv:2305.14314, section 2 (block-wise quantization).
    """

    kind: Literal["quantize_weights_only"] = "quantize_weights_only"
    needs_samples: ClassVar[bool] = False
    bits: Literal[4, 8] = 8
    block_size: Literal[16, 32, 64, 128, 256] = 128

    def __call__(self, model: Model, ctx: Context, /) -> Model:
        wanted = [(node, *which) for node in model.nodes() for which in weights_of(node)]
        for done, (node, index, axis) in enumerate(wanted):
            ctx.progress(self.kind, done, len(wanted))
            if ctx.is_ignored(node.name or "", node.op_type):
                ctx.skip(self, node.name, "it is on the ignored list")
                continue
            weight = const(node.inputs[index])
            assert weight is not None
            if reason := _why_not(weight):
                ctx.skip(self, node.name, reason)
                continue
            try:
                self._decide(node, index, axis, weight, ctx)
            except ValueError as cause:
                raise PassError(str(cause), step=self.kind, node=node.name or "?") from cause
        ctx.progress(self.kind, len(wanted), len(wanted))
        return model

    def _decide(
        self, node: ir.Node, index: int, axis: int | None, weight: Array, ctx: Context
    ) -> None:
        value = node.inputs[index]
        assert value is not None
        params = self._blocks(node, weight) or symmetric_params(weight, bits=8, axis=axis)
        if params.block_size is None and self.bits < 8 and index in (0, 1):
            # Of the two weights of a recurrent layer the first speaks for both.
            ctx.skip(
                self, node.name, f"8 bits in place of {self.bits}: {_why_eight(node, weight)}"
            )
        earlier = quant_of(value)
        if earlier is not None and (earlier.axis, earlier.block_size, earlier.bits) != (
            params.axis,
            params.block_size,
            params.bits,
        ):
            # Another node reads the same array along another axis: each gets its own.
            value = set_const(node, index, weight, suffix="own")
        set_quant(value, params)

    def _blocks(self, node: ir.Node, weight: Array) -> QuantParams | None:
        """Parameters for each block; None for what is quantized per channel."""
        if node.op_type not in ("MatMul", "Gemm") or weight.ndim != 2:
            return None
        axis = input_axis(node)
        size: int = self.block_size
        while weight.shape[axis] % size:
            size //= 2
        if size < _SMALLEST_BLOCK:
            return None
        search = self.bits < 8
        return block_params(weight, bits=self.bits, axis=axis, block_size=size, search=search)


def input_axis(node: ir.Node) -> int:
    """The axis of a MatMul's or Gemm's 2-D weight that runs over input channels."""
    return 1 - (channel_axis(node) or 0)


def _why_not(weight: Array) -> str:
    if weight.dtype != np.float32:
        return f"the weight is {weight.dtype}; only float32 is quantized"
    if weight.ndim < 2:
        return "the weight is a vector"
    return f"the weight has only {weight.size} elements" if weight.size < _SMALL else ""


def _why_eight(node: ir.Node, weight: Array) -> str:
    if node.op_type in ("MatMul", "Gemm") and weight.ndim == 2:
        return f"its {weight.shape[input_axis(node)]} input channels are no multiple of 16"
    kind = "a stack of matrices" if node.op_type == "MatMul" else node.op_type
    return f"no runtime multiplies 4-bit weights of {kind}"
