"""Maxima, means and norms over windows, and over all of each channel."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import onnx_ir as ir
import torch
from torch import Tensor
from torch.nn import functional

from edgebm.grad.op import Compute, Family, NotCovered
from edgebm.grad.windows import Pads, Windows, padded, symmetric

_MAX: dict[int, Callable[..., Tensor]] = {
    1: functional.max_pool1d,
    2: functional.max_pool2d,
    3: functional.max_pool3d,
}
_MEAN: dict[int, Callable[..., Tensor]] = {
    1: functional.avg_pool1d,
    2: functional.avg_pool2d,
    3: functional.avg_pool3d,
}
_CONV: dict[int, Callable[..., Tensor]] = {1: torch.conv1d, 2: torch.conv2d, 3: torch.conv3d}


@dataclass(frozen=True, slots=True)
class _Pool:
    """A pooling node by its attributes."""

    kernel: tuple[int, ...]
    windows: Windows

    @classmethod
    def of(cls, node: ir.Node) -> _Pool:
        kernel = tuple(node.attributes.get_ints("kernel_shape", ()))
        if len(kernel) not in _MAX:
            raise NotCovered(f"torch has no pooling over {len(kernel)} spatial axes")
        return cls(kernel, Windows.of(node))

    @property
    def rank(self) -> int:
        return len(self.kernel)

    @property
    def stride(self) -> list[int]:
        return self.windows.stride(self.rank)

    @property
    def dilation(self) -> list[int]:
        return self.windows.dilation(self.rank)

    def pads(self, x: Tensor) -> tuple[Pads, Pads]:
        """What the node pads, and that with what the last windows hang over."""
        pads = self.windows.padding(x.shape[2:], self.kernel)
        return pads, self.windows.overhang(x.shape[2:], self.kernel, pads)

    def maximum(self, x: Tensor) -> Tensor:
        """Padding never is the maximum."""
        if not x.is_floating_point():  # torch has no kernel for most integers; 8 bits are exact
            return self.maximum(x.to(torch.float32)).to(x.dtype)
        _, pads = self.pads(x)
        even = symmetric(pads)
        if even is None or any(2 * p > k for p, k in zip(even, self.kernel, strict=True)):
            x, even = padded(x, pads, -math.inf), [0] * self.rank
        return _MAX[self.rank](x, self.kernel, self.stride, even, self.dilation)

    def total(self, x: Tensor, pads: Pads) -> Tensor:
        """Sums over the windows of `x` [N, C, ...], padded with zeros."""
        x = padded(x, pads)
        if max(self.dilation) == 1:
            return _MEAN[self.rank](x, self.kernel, self.stride) * math.prod(self.kernel)
        apart = x.flatten(0, 1).unsqueeze(1)
        ones = x.new_ones(1, 1, *self.kernel)
        found = _CONV[self.rank](apart, ones, None, self.stride, 0, self.dilation)
        return found.reshape(*x.shape[:2], *found.shape[2:])


def _max_pool(node: ir.Node) -> Compute:
    if len(node.outputs) > 1 and node.outputs[1].name:
        raise NotCovered("the places of the maxima have no gradient")
    return _Pool.of(node).maximum


def _average_pool(node: ir.Node) -> Compute:
    pool, with_pads = _Pool.of(node), node.attributes.get_int("count_include_pad", 0) == 1

    def compute(x: Tensor) -> Tensor:
        pads, over = pool.pads(x)
        even = symmetric(pads)
        # torch's own kernel has one number per axis, no dilation, and no window hanging over.
        small = even is not None and all(
            2 * p <= k for p, k in zip(even, pool.kernel, strict=True)
        )
        if small and over == pads and max(pool.dilation) == 1:
            mean = _MEAN[pool.rank]
            return mean(x, pool.kernel, pool.stride, even, False, with_pads)  # noqa: FBT003
        ones = x.new_ones(1, 1, *x.shape[2:])
        # What hangs over counts in no mean; what the node pads does where it says so.
        inner = padded(ones, pads, 1.0 if with_pads else 0.0)
        rest = tuple((o[0] - p[0], o[1] - p[1]) for o, p in zip(over, pads, strict=True))
        return pool.total(x, over) / pool.total(inner, rest)

    return compute


def _lp_pool(node: ir.Node) -> Compute:
    pool, p = _Pool.of(node), node.attributes.get_int("p", 2)

    def compute(x: Tensor) -> Tensor:
        _, over = pool.pads(x)
        return pool.total(x.abs().pow(p), over).pow(1 / p)

    return compute


def _spatial(x: Tensor) -> list[int]:
    return list(range(2, x.ndim))


def _global(function: Callable[[Tensor, list[int]], Tensor]) -> Callable[[ir.Node], Compute]:
    """Over all spatial axes, which stay with size 1."""
    return lambda _: lambda x: function(x, _spatial(x))


def _global_lp(node: ir.Node) -> Compute:
    p = float(node.attributes.get_int("p", 2))
    return lambda x: torch.linalg.vector_norm(x, p, _spatial(x), keepdim=True)


OPS: Family = {
    "AveragePool": _average_pool,
    "GlobalAveragePool": _global(lambda x, axes: x.mean(axes, keepdim=True)),
    "GlobalLpPool": _global_lp,
    "GlobalMaxPool": _global(lambda x, axes: x.amax(axes, keepdim=True)),
    "LpPool": _lp_pool,
    "MaxPool": _max_pool,
}
