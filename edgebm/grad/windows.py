"""Windows that slide over spatial axes: strides, dilations and padding, as a node has them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import onnx_ir as ir
import torch
from torch import Tensor

Pads = tuple[tuple[int, int], ...]
"""Elements added in front of and behind each spatial axis; negative ones are cut off."""


@dataclass(frozen=True, slots=True)
class Windows:
    """The attributes that Conv, ConvTranspose and the pooling ops share.

    `strides`, `dilations` and `pads` are empty where the node leaves them out.
    """

    strides: tuple[int, ...]
    dilations: tuple[int, ...]
    pads: tuple[int, ...]
    auto_pad: str
    ceil: bool

    @classmethod
    def of(cls, node: ir.Node) -> Windows:
        """Read them off a node."""
        attributes = node.attributes
        return cls(
            strides=tuple(attributes.get_ints("strides", ())),
            dilations=tuple(attributes.get_ints("dilations", ())),
            pads=tuple(attributes.get_ints("pads", ())),
            auto_pad=attributes.get_string("auto_pad", "NOTSET"),
            ceil=attributes.get_int("ceil_mode", 0) == 1,
        )

    def stride(self, rank: int) -> list[int]:
        """One stride for each of `rank` spatial axes."""
        return list(self.strides or [1] * rank)

    def dilation(self, rank: int) -> list[int]:
        """One dilation for each of `rank` spatial axes."""
        return list(self.dilations or [1] * rank)

    def padding(self, sizes: Sequence[int], kernel: Sequence[int]) -> Pads:
        """How far an input of these spatial sizes is padded.

        SAME gives ceil(size / stride) outputs; an odd element goes behind (UPPER) or in front.
        """
        rank = len(kernel)
        if self.auto_pad in ("NOTSET", ""):
            pads = self.pads or (0,) * (2 * rank)
            return tuple(zip(pads[:rank], pads[rank:], strict=True))
        if self.auto_pad == "VALID":
            return ((0, 0),) * rank
        found = []
        for size, k, s, d in zip(
            sizes, kernel, self.stride(rank), self.dilation(rank), strict=True
        ):
            total = max(0, (-(-size // s) - 1) * s + (k - 1) * d + 1 - size)
            found.append(halves(total, odd_in_front=self.auto_pad == "SAME_LOWER"))
        return tuple(found)

    def overhang(self, sizes: Sequence[int], kernel: Sequence[int], pads: Pads) -> Pads:
        """`pads` with what the last windows need behind, where `ceil_mode` lets them hang over.

        A window that would begin behind the input and its front padding is left out.
        """
        if not self.ceil:
            return pads
        rank = len(kernel)
        found = []
        for size, k, s, d, (front, back) in zip(
            sizes, kernel, self.stride(rank), self.dilation(rank), pads, strict=True
        ):
            span = (k - 1) * d + 1
            count = -(-(size + front + back - span) // s) + 1
            if (count - 1) * s >= size + front:
                count -= 1
            found.append((front, max(back, (count - 1) * s + span - size - front)))
        return tuple(found)


def halves(total: int, *, odd_in_front: bool) -> tuple[int, int]:
    """`total` in front and behind."""
    small, large = total // 2, total - total // 2
    return (large, small) if odd_in_front else (small, large)


def symmetric(pads: Pads) -> list[int] | None:
    """One number per axis where front and back are equal and nothing is cut off, else None."""
    if any(front != back or front < 0 for front, back in pads):
        return None
    return [front for front, _ in pads]


def padded(x: Tensor, pads: Pads, value: float = 0.0) -> Tensor:
    """`x` with its last axes padded, the last of `pads` being that of the last axis."""
    if not any(front or back for front, back in pads):
        return x
    flat = [side for pair in reversed(pads) for side in pair]
    return torch.nn.functional.pad(x, flat, value=value)
