"""Convolutions over one, two or three spatial axes, and their transposes."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import onnx_ir as ir
import torch
from torch import Tensor

from edgebm.grad.op import Compute, Family, NotCovered
from edgebm.grad.windows import Pads, Windows, halves, padded, symmetric
from edgebm.ir.edit import input_at

_CONV: dict[int, Callable[..., Tensor]] = {1: torch.conv1d, 2: torch.conv2d, 3: torch.conv3d}
_BACK: dict[int, Callable[..., Tensor]] = {
    1: torch.conv_transpose1d,
    2: torch.conv_transpose2d,
    3: torch.conv_transpose3d,
}


def _check_rank(node: ir.Node) -> None:
    """Raises `NotCovered` where torch has no convolution over so many axes."""
    weight = input_at(node, 1)
    if weight is None or weight.shape is None:
        return
    rank = len(weight.shape) - 2
    if rank not in _CONV:
        raise NotCovered(f"torch has no convolution over {rank} spatial axes")


def _conv(node: ir.Node) -> Compute:
    """Weight [O, I / groups, *kernel]."""
    _check_rank(node)
    windows, groups = Windows.of(node), node.attributes.get_int("group", 1)

    def compute(x: Tensor, w: Tensor, b: Tensor | None = None) -> Tensor:
        rank = w.ndim - 2
        pads = windows.padding(x.shape[2:], w.shape[2:])
        even = symmetric(pads)
        if even is None:
            x, even = padded(x, pads), [0] * rank
        return _CONV[rank](x, w, b, windows.stride(rank), even, windows.dilation(rank), groups)

    return compute


@dataclass(frozen=True, slots=True)
class _Transposed:
    """ConvTranspose by its attributes. Weight [I, O / groups, *kernel]."""

    windows: Windows
    groups: int
    extra: tuple[int, ...]
    output_shape: tuple[int, ...]

    def run(self, x: Tensor, w: Tensor, b: Tensor | None = None) -> Tensor:
        """What the convolution of the same attributes does backwards."""
        rank = w.ndim - 2
        stride, dilation = self.windows.stride(rank), self.windows.dilation(rank)
        extra = list(self.extra or [0] * rank)
        cut = self._cut(x.shape[2:], w.shape[2:], extra)
        even = symmetric(cut)
        fits = all(e < max(s, d) for e, s, d in zip(extra, stride, dilation, strict=True))
        if even is not None and fits:
            return _BACK[rank](x, w, b, stride, even, extra, self.groups, dilation)
        # Whatever lies outside of the full output has the bias alone.
        full = _BACK[rank](x, w, None, stride, [0] * rank, [0] * rank, self.groups, dilation)
        back = tuple((-front, e - end) for (front, end), e in zip(cut, extra, strict=True))
        found = padded(full, back)
        return found if b is None else found + b.reshape(-1, *[1] * rank)

    def _cut(self, sizes: Sequence[int], kernel: Sequence[int], extra: Sequence[int]) -> Pads:
        """What is cut off the full output, extra elements included, on each side of each axis."""
        windows, rank = self.windows, len(kernel)
        if not self.output_shape and windows.auto_pad not in ("SAME_UPPER", "SAME_LOWER"):
            return windows.padding(sizes, kernel)
        stride, dilation = windows.stride(rank), windows.dilation(rank)
        wanted = self.output_shape[-rank:] or [n * s for n, s in zip(sizes, stride, strict=True)]
        full = [
            (n - 1) * s + (k - 1) * d + 1 + e
            for n, s, k, d, e in zip(sizes, stride, kernel, dilation, extra, strict=True)
        ]
        in_front = windows.auto_pad != "SAME_UPPER"
        return tuple(
            halves(have - want, odd_in_front=in_front)
            for have, want in zip(full, wanted, strict=True)
        )


def _conv_transpose(node: ir.Node) -> Compute:
    _check_rank(node)
    return _Transposed(
        Windows.of(node),
        node.attributes.get_int("group", 1),
        tuple(node.attributes.get_ints("output_padding", ())),
        tuple(node.attributes.get_ints("output_shape", ())),
    ).run


OPS: Family = {"Conv": _conv, "ConvTranspose": _conv_transpose}
