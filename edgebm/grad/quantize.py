"""Q and DQ nodes: rounding with a straight-through estimator, so that a pair has gradients."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import onnx_ir as ir
import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from edgebm.grad.op import Compute, Family, NotCovered
from edgebm.grad.tensors import HELD_DTYPES
from edgebm.ir.edit import input_at

_BOUNDS = {
    ir.DataType.INT2: (-2, 1),
    ir.DataType.UINT2: (0, 3),
    ir.DataType.INT4: (-8, 7),
    ir.DataType.UINT4: (0, 15),
    ir.DataType.INT8: (-128, 127),
    ir.DataType.UINT8: (0, 255),
    ir.DataType.INT16: (-(2**15), 2**15 - 1),
    ir.DataType.UINT16: (0, 2**16 - 1),
}


class StraightThrough(torch.autograd.Function):
    """Nearest whole number, ties to even; the gradient passes as if nothing was rounded.

    Source:
        Bengio et al. 2013, arXiv:1308.3432, section 2.1.
    """

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        return torch.round(x)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, received: Tensor) -> Tensor:
        return received


def straight_through(x: Tensor) -> Tensor:
    rounded: Tensor = StraightThrough.apply(x)  # type: ignore[no-untyped-call]
    return rounded


@dataclass(frozen=True, slots=True)
class _Layout:
    """Which neighbours share a scale: all, those on one place of `axis`, or blocks along it."""

    axis: int
    block_size: int

    @classmethod
    def of(cls, node: ir.Node) -> _Layout:
        attributes = node.attributes
        return cls(attributes.get_int("axis", 1), attributes.get_int("block_size", 0))

    def spread(self, parameter: Tensor, x: Tensor) -> Tensor:
        """A scale or zero point in a shape that broadcasts against `x`."""
        if parameter.numel() == 1 and not self.block_size:
            return parameter.reshape(())
        axis = self.axis % x.ndim
        if self.block_size:
            return parameter.repeat_interleave(self.block_size, axis).narrow(
                axis, 0, x.shape[axis]
            )
        return parameter.reshape([-1 if i == axis else 1 for i in range(x.ndim)])


def _quantize(node: ir.Node) -> Compute:
    """While gradients are recorded the integers come as floats: whole numbers hold no gradient."""
    kind, layout = _integers_of(node), _Layout.of(node)
    held, (low, high) = HELD_DTYPES[kind], _BOUNDS[kind]

    def compute(x: Tensor, scale: Tensor, zero_point: Tensor | None = None) -> Tensor:
        # Halves cannot hold every integer of 16 bits.
        y = straight_through(x.float() / layout.spread(scale, x).float())
        if zero_point is not None:
            y = y + layout.spread(zero_point, x)
        y = torch.clamp(y, low, high)
        return y if y.requires_grad else y.to(held)

    return compute


def _integers_of(node: ir.Node) -> ir.DataType:
    zero_point = input_at(node, 2)
    kind = None if zero_point is None else zero_point.dtype
    if kind is None:
        kind = ir.DataType(node.attributes.get_int("output_dtype", 0) or int(ir.DataType.UINT8))
    if kind not in _BOUNDS:
        raise NotCovered(f"only integers of 2 to 16 bits are rounded to, not {kind.name.lower()}")
    return kind


def _dequantize(node: ir.Node) -> Compute:
    layout = _Layout.of(node)
    stored = input_at(node, 0)
    if stored is not None and stored.dtype is not None and stored.dtype.is_floating_point():
        raise NotCovered(f"{stored.dtype.name.lower()} is no integer")

    def compute(q: Tensor, scale: Tensor, zero_point: Tensor | None = None) -> Tensor:
        y = q.to(torch.float32)
        if zero_point is not None:
            y = y - layout.spread(zero_point, q)
        return (y * layout.spread(scale, q).float()).to(scale.dtype)

    return compute


def _dynamic(node: ir.Node) -> Compute:
    """The range of each call becomes the grid; gradients reach x through the rounding alone."""

    def compute(x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        with torch.no_grad():
            low, high = x.min().clamp_max(0.0), x.max().clamp_min(0.0)
            scale = torch.where(high > low, (high - low) / 255, 1.0)
            zero = torch.round(torch.clamp(-low / scale, 0, 255))
        y = torch.clamp(straight_through(x / scale) + zero, 0, 255)
        y = y if y.requires_grad else y.to(torch.uint8)
        return y, scale, zero.to(torch.uint8)

    return compute


OPS: Family = {
    "DequantizeLinear": _dequantize,
    "DynamicQuantizeLinear": _dynamic,
    "QuantizeLinear": _quantize,
}
