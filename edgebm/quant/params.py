"""Scale and zero point arithmetic. Pure numpy; no graph, no target, no torch."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

F32 = NDArray[np.float32]
_SMALLEST_SCALE = float(np.finfo(np.float32).tiny)
_LARGEST_HALF = float(np.finfo(np.float16).max)


@dataclass(frozen=True, slots=True)
class Range:
    """The float interval [low, high] that an activation's integers shall cover."""

    low: float
    high: float


@dataclass(frozen=True, slots=True)
class QuantParams:
    """How one tensor is quantized: `q = clip(round(x / scale) + zero_point, qmin, qmax)`.

    `scale` (float32) and `zero_point` (int32) have shape `[]` (per tensor), `[C]` (per channel
    along `axis`), or with `block_size` the tensor's own shape with `axis` divided by it (per
    block of that many neighbours along `axis`, as in ONNX's DequantizeLinear). They are a
    decision, not a graph node: Q/DQ nodes appear only when a backend lowers the model.
    """

    bits: int
    signed: bool
    scale: F32
    zero_point: NDArray[np.int32]
    axis: int | None = None
    block_size: int | None = None

    @property
    def qmin(self) -> int:
        """Smallest integer. Signed grids are narrow, so that -x and +x round alike."""
        return -(2 ** (self.bits - 1) - 1) if self.signed else 0

    @property
    def qmax(self) -> int:
        return int(2 ** (self.bits - 1) - 1 if self.signed else 2**self.bits - 1)


def symmetric_params(
    weight: NDArray[Any], *, bits: int, axis: int | None, peak: NDArray[Any] | None = None
) -> QuantParams:
    """Choose symmetric parameters from the largest magnitude.

    Args:
        weight: float, any rank. Not modified.
        bits: 2 to 16.
        axis: channel axis for one scale per channel; None for one in all.
        peak: magnitudes to use in place of the largest, shape `[weight.shape[axis]]` or `[]`.

    Returns:
        Parameters with scale of shape `[weight.shape[axis]]`, or `[]` if axis is None. A
        channel of zeros, or too small for a normal float32 step, gets scale 1: no scale is
        ever 0, and each has a finite inverse.

    Raises:
        ValueError: `weight` has a NaN or an infinity.

    Source:
        Krishnamoorthi 2018, arXiv:1806.08342, section 2.2.
    """
    if not np.isfinite(weight).all():
        raise ValueError("weight has NaN or infinite values")
    if peak is None:
        others = None if axis is None else tuple(i for i in range(weight.ndim) if i != axis)
        peak = np.abs(weight).max(axis=others, initial=0.0)
    step = np.asarray(peak, np.float64) / (2 ** (bits - 1) - 1)
    scale = np.where(step > _SMALLEST_SCALE, step, 1.0).astype(np.float32)
    return QuantParams(bits, signed=True, scale=scale, zero_point=_zeros(scale), axis=axis)


# Largest values of a block that the search for the best step may clip away.
_SHRINK = np.linspace(1.0, 0.7, 11)


def block_params(
    weight: NDArray[Any], *, bits: int, axis: int, block_size: int, search: bool = True
) -> QuantParams:
    """Choose asymmetric parameters for each block of neighbours along `axis`.

    Four bits have 16 levels: a zero point per block, which costs `bits` per block to store,
    keeps two decibels more of normal weights than a symmetric grid of 15.

    Args:
        weight: float, any rank; `block_size` divides `weight.shape[axis]`. Not modified.
        bits: 2 to 8.
        axis: the axis that the blocks run along, for a product its input channels.
        block_size: neighbours that share a scale and a zero point.
        search: try ranges down to 0.7 of a block's own and keep the one with the least squared
            error; else take the whole range.

    Returns:
        Unsigned parameters; shapes as in `QuantParams`. 0.0 is exactly on the grid.

    Raises:
        ValueError: `weight` has a NaN or an infinity, or the blocks do not divide the axis.

    Source:
        Dettmers et al. 2023, "QLoRA", arXiv:2305.14314, section 2 (blocks); Nagel et al. 2021,
        arXiv:2106.08295, section 3.1 (range by squared error).
    """
    if not np.isfinite(weight).all():
        raise ValueError("weight has NaN or infinite values")
    axis %= weight.ndim
    if weight.shape[axis] % block_size:
        raise ValueError(f"blocks of {block_size} do not divide an axis of {weight.shape[axis]}")
    count = weight.shape[axis] // block_size
    blocks = weight.reshape(*weight.shape[:axis], count, block_size, *weight.shape[axis + 1 :])
    low = np.minimum(blocks.min(axis=axis + 1), 0.0).astype(np.float64)
    high = np.maximum(blocks.max(axis=axis + 1), 0.0).astype(np.float64)
    best, least = _asymmetric(low, high, bits, axis, block_size), None
    for shrink in _SHRINK if search else ():
        tried = _asymmetric(low * shrink, high * shrink, bits, axis, block_size)
        off = fake_quantize(weight, tried).astype(np.float64) - weight
        error = (off**2).reshape(blocks.shape).sum(axis=axis + 1)
        if least is None:
            best, least = tried, error
            continue
        better = error < least
        scale = np.where(better, tried.scale, best.scale)
        zero = np.where(better, tried.zero_point, best.zero_point)
        best, least = replace(best, scale=scale, zero_point=zero), np.minimum(error, least)
    return best


def _asymmetric(
    low: NDArray[Any], high: NDArray[Any], bits: int, axis: int, block_size: int
) -> QuantParams:
    """Unsigned block parameters that cover [low, high] (low <= 0 <= high)."""
    levels = 2**bits - 1
    step = (high - low) / levels
    scale = np.where(step > _SMALLEST_SCALE, step, 1.0).astype(np.float32)
    zero = np.clip(np.rint(-low / scale), 0, levels).astype(np.int32)
    return QuantParams(bits, False, scale, zero, axis, block_size)  # noqa: FBT003 - in order


def range_params(span: Range, *, bits: int, signed: bool) -> QuantParams:
    """Choose per-tensor parameters that cover `span`, with 0.0 exactly on the grid.

    An unsigned grid gets a zero point (asymmetric); a signed one is symmetric.

    Args:
        span: interval to cover; it is widened to contain 0.0.
        bits: 2 to 16.
        signed: False for [0, 2**bits - 1], True for the narrow signed grid.

    Source:
        Jacob et al. 2018, arXiv:1712.05877, section 2.1 and 3.
    """
    low, high = min(span.low, 0.0), max(span.high, 0.0)
    if signed:
        return symmetric_params(np.array([low, high], np.float32), bits=bits, axis=None)
    scale = np.float32((high - low) / (2**bits - 1))
    if not np.isfinite(scale):
        raise ValueError(f"range [{span.low}, {span.high}] is not finite")
    if scale <= _SMALLEST_SCALE:
        scale = np.float32(1.0)
    zero = np.clip(np.rint(-low / scale), 0, 2**bits - 1)
    return QuantParams(
        bits, signed=False, scale=np.asarray(scale), zero_point=np.asarray(zero, np.int32)
    )


def with_bits(params: QuantParams, bits: int) -> QuantParams:
    """Signed `params` on a grid of `bits` that reaches as far; the same when bits are equal."""
    if bits == params.bits:
        return params
    scale = np.asarray(params.scale * (params.qmax / (2 ** (bits - 1) - 1)), np.float32)
    return replace(params, bits=bits, scale=scale)


def with_half_scales(params: QuantParams) -> QuantParams:
    """The same grid with every scale rounded up to a number that FP16 has, so it covers as much.

    Below 2**-24, the smallest number above 0 in FP16, that is far up: such a step rounds all of
    what was meant for it to a few integers, which FP16 could not tell apart either.

    Raises:
        ValueError: a scale is above the largest number of FP16, 65504.
    """
    if params.scale.max(initial=0.0) > _LARGEST_HALF:
        raise ValueError(f"a scale of {params.scale.max():g} is no FP16 number")
    near = params.scale.astype(np.float16)
    up = np.where(near < params.scale, np.nextafter(near, np.float16(np.inf)), near)
    return replace(params, scale=np.asarray(up, np.float32))


def quantize(x: NDArray[Any], params: QuantParams) -> NDArray[np.int32]:
    """The integers `x` becomes under `params` (same shape)."""
    scale, zero = spread(params.scale, x, params), spread(params.zero_point, x, params)
    return np.asarray(np.clip(np.rint(x / scale) + zero, params.qmin, params.qmax), np.int32)


def dequantize(q: NDArray[Any], params: QuantParams) -> F32:
    """The float32 values that the integers `q` stand for (same shape)."""
    scale, zero = spread(params.scale, q, params), spread(params.zero_point, q, params)
    return np.asarray((q - zero) * scale, np.float32)


def fake_quantize(x: NDArray[Any], params: QuantParams) -> F32:
    """Round `x` to the grid of `params` and come back to float32 (same shape)."""
    return dequantize(quantize(x, params), params)


def _zeros(scale: F32) -> NDArray[np.int32]:
    return np.zeros(scale.shape, np.int32)


def spread(per_channel: NDArray[Any], x: NDArray[Any], params: QuantParams) -> NDArray[Any]:
    """Shape [C] to [1, .., C, .., 1], blocks to the shape of `x`: it broadcasts against `x`."""
    if params.block_size is not None:
        assert params.axis is not None
        return np.repeat(per_channel, params.block_size, axis=params.axis)
    shape = [1] * x.ndim
    if params.axis is not None:
        shape[params.axis] = -1
    return per_channel.reshape(shape)
