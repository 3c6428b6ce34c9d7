"""Padding: with a constant, or with what lies inside."""

from __future__ import annotations

import onnx_ir as ir
import torch
from torch import Tensor

from edgebm.grad.op import Compute, Family, NotCovered, whole
from edgebm.grad.windows import padded


def _pad(node: ir.Node) -> Compute:
    """Constant, or what lies inside: mirrored, the edge again, or the other end. Negative cuts."""
    mode = node.attributes.get_string("mode", "constant")
    if mode not in ("constant", "reflect", "edge", "wrap"):
        raise NotCovered(f"there is no mode '{mode}'")

    def compute(
        x: Tensor, pads: Tensor, value: Tensor | None = None, axes: Tensor | None = None
    ) -> Tensor:
        flat = whole(pads)
        along = list(range(x.ndim)) if axes is None else whole(axes)
        sides: list[tuple[int, int]] = [(0, 0)] * x.ndim
        for i, axis in enumerate(along):
            sides[axis] = (flat[i], flat[i + len(along)])
        if mode == "constant":
            return padded(x, tuple(sides), 0 if value is None else value.item())
        # What is cut off is not there to be mirrored.
        x = padded(x, tuple((min(front, 0), min(back, 0)) for front, back in sides))
        for axis, (front, back) in enumerate(sides):
            if front > 0 or back > 0:
                places = _places(x.shape[axis], max(front, 0), max(back, 0), mode)
                x = x.index_select(axis, torch.tensor(places, device=x.device))
        return x

    return compute


def _places(size: int, front: int, back: int, mode: str) -> list[int]:
    """Where each element of an axis comes from."""
    wanted = range(-front, size + back)
    if mode == "edge":
        return [min(max(i, 0), size - 1) for i in wanted]
    if mode == "wrap":
        return [i % size for i in wanted]
    turn = max(1, 2 * (size - 1))
    return [min(i % turn, turn - i % turn) for i in wanted]


OPS: Family = {"Pad": _pad}
