"""Decide how constant weights become integers; leave the float weights as they are."""

from __future__ import annotations

from typing import Annotated, Any, ClassVar, Literal

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray
from pydantic import Field

from edgebm.errors import PassError
from edgebm.ir.annotate import quant_of, set_quant
from edgebm.ir.edit import const, set_const
from edgebm.ir.model import Model
from edgebm.ir.traits import MATMULS, RECURRENT, weights_of
from edgebm.passes.base import Context, step
from edgebm.quant.params import symmetric_params

_BITS = 8
_SMALL_TABLE = 4096  # elements; below, int8 saves nothing worth a Gather and a multiply


@step
class QuantizeWeights:
    """Symmetric parameters, one scale per output channel, from the largest magnitude.

    Covers Conv, ConvTranspose (per tensor when grouped), Gemm, MatMul with a constant right
    operand, embedding tables (one scale per row, weight only), and both weights of LSTM, GRU and
    RNN (one scale per row of a gate). A backend whose kernels would overflow takes a bit less when
    it lowers the model.

    `bits` are those of kernels and matrices: with 4 an engine stores 4-bit values as int8, and
    multiplies them as such. Tables and recurrent weights always take 8.

    Source:
        Krishnamoorthi 2018, arXiv:1806.08342, section 2.2.
    """

    kind: Literal["quantize_weights"] = "quantize_weights"
    needs_samples: ClassVar[bool] = False
    bits: Annotated[int, Field(ge=2, le=8)] = _BITS

    def __call__(self, model: Model, ctx: Context, /) -> Model:
        nodes = [n for n in model.nodes() if n.op_type in MATMULS | RECURRENT | {"Gather"}]
        for done, node in enumerate(nodes):
            ctx.progress(self.kind, done, len(nodes))
            for index, axis in weights_of(node):
                if reason := self._decide(node, index, axis, ctx):
                    ctx.skip(self, node.name, reason)
        ctx.progress(self.kind, len(nodes), len(nodes))
        return model

    def _decide(self, node: ir.Node, index: int, axis: int | None, ctx: Context) -> str:
        """Annotate one weight; return why not, or an empty string."""
        if ctx.is_ignored(node.name or "", node.op_type):
            return "it is on the ignored list"
        value = node.inputs[index]
        weight = const(value)
        assert value is not None
        assert weight is not None
        if reason := _why_not(node, weight):
            return reason
        try:
            bits = self.bits if node.op_type in MATMULS else _BITS
            params = symmetric_params(weight, bits=bits, axis=axis)
        except ValueError as cause:
            raise PassError(str(cause), step=self.kind, node=node.name or "?") from cause
        earlier = quant_of(value)
        if earlier is not None and earlier.axis != params.axis:
            # Another node reads the same array along another axis: each gets its own.
            value = set_const(node, index, weight, suffix="own")
        set_quant(value, params)
        return ""


def _why_not(node: ir.Node, weight: NDArray[Any]) -> str:
    """Why this weight stays in float, by its own shape and type."""
    if weight.dtype != np.float32:
        return f"the weight is {weight.dtype}; integer kernels work beside float32 only"
    if node.op_type == "Gather" and weight.size < _SMALL_TABLE:
        return f"the table has only {weight.size} elements"
    return "the weight is a vector" if weight.ndim < 2 else ""
