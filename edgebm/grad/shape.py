"""Ops that move elements and know shapes; gradients go back the way the elements came."""

from __future__ import annotations

import numpy as np
import onnx_ir as ir
import torch
from torch import Tensor

from edgebm.grad.op import Compute, Family, plain, whole


def _reshape(node: ir.Node) -> Compute:
    zero_copies = node.attributes.get_int("allowzero", 0) == 0

    def compute(x: Tensor, shape: Tensor) -> Tensor:
        sizes = whole(shape)
        if zero_copies:
            sizes = [x.shape[i] if size == 0 else size for i, size in enumerate(sizes)]
        return x.reshape(sizes)

    return compute


def _flatten(node: ir.Node) -> Compute:
    axis = node.attributes.get_int("axis", 1)

    def compute(x: Tensor) -> Tensor:
        rows = x.shape[: axis if axis >= 0 else axis + x.ndim].numel()
        return x.reshape(rows, x.numel() // rows if rows else -1)

    return compute


def _transpose(node: ir.Node) -> Compute:
    order = node.attributes.get_ints("perm", None)
    return lambda x: x.permute(list(reversed(range(x.ndim))) if order is None else list(order))


def _squeeze(x: Tensor, axes: Tensor | None = None) -> Tensor:
    return x.squeeze() if axes is None else x.squeeze(tuple(whole(axes)))


def _unsqueeze(x: Tensor, axes: Tensor) -> Tensor:
    listed = whole(axes)
    rank = x.ndim + len(listed)
    for axis in sorted(axis % rank for axis in listed):
        x = x.unsqueeze(axis)
    return x


def _concat(node: ir.Node) -> Compute:
    axis = node.attributes.get_int("axis", 0)
    return lambda *parts: torch.cat(parts, axis)


def _slice(
    x: Tensor,
    starts: Tensor,
    ends: Tensor,
    axes: Tensor | None = None,
    steps: Tensor | None = None,
) -> Tensor:
    begin, end = whole(starts), whole(ends)
    along = list(range(len(begin))) if axes is None else whole(axes)
    by = [1] * len(begin) if steps is None else whole(steps)
    for axis, *limits in zip(along, begin, end, by, strict=True):
        picked = range(*slice(*limits).indices(x.shape[axis]))
        if picked.step == 1:
            x = x.narrow(axis, picked.start, len(picked))
        else:
            x = x.index_select(axis, torch.tensor(list(picked), device=x.device))
    return x


def _split(node: ir.Node) -> Compute:
    axis = node.attributes.get_int("axis", 0)
    count = node.attributes.get_int("num_outputs", None) or len(node.outputs)

    def compute(x: Tensor, sizes: Tensor | None = None) -> tuple[Tensor, ...]:
        if sizes is not None:
            return tuple(torch.split(x, whole(sizes), axis))
        each = -(-x.shape[axis] // count)  # the last part is what is left
        rest = x.shape[axis] - each * (count - 1)
        return tuple(torch.split(x, [each] * (count - 1) + [rest], axis))

    return compute


def _shape(node: ir.Node) -> Compute:
    start, end = node.attributes.get_int("start", 0), node.attributes.get_int("end", None)
    return lambda x: torch.tensor(list(x.shape)[start:end], dtype=torch.int64)


def _expand(x: Tensor, shape: Tensor) -> Tensor:
    return x.expand(np.broadcast_shapes(tuple(x.shape), tuple(whole(shape))))


def _size(x: Tensor) -> Tensor:
    return torch.tensor(x.numel(), dtype=torch.int64)


def _tile(x: Tensor, repeats: Tensor) -> Tensor:
    return x.repeat(whole(repeats))


def _depth_to_space(node: ir.Node) -> Compute:
    """Blocks of b x b from channels that lie block by block (DCR) or channel by channel (CRD)."""
    b, mode = node.attributes.get_int("blocksize", 1), node.attributes.get_string("mode", "DCR")

    def compute(x: Tensor) -> Tensor:
        if mode == "CRD":
            return torch.pixel_shuffle(x, b)
        n, c, h, w = x.shape
        blocks = x.reshape(n, b, b, c // (b * b), h, w)
        return blocks.permute(0, 3, 4, 1, 5, 2).reshape(n, c // (b * b), h * b, w * b)

    return compute


def _space_to_depth(node: ir.Node) -> Compute:
    b = node.attributes.get_int("blocksize", 1)

    def compute(x: Tensor) -> Tensor:
        n, c, h, w = x.shape
        blocks = x.reshape(n, c, h // b, b, w // b, b)
        return blocks.permute(0, 3, 5, 1, 2, 4).reshape(n, c * b * b, h // b, w // b)

    return compute


OPS: Family = {
    "Concat": _concat,
    "DepthToSpace": _depth_to_space,
    "Expand": plain(_expand),
    "Flatten": _flatten,
    "Reshape": _reshape,
    "Shape": _shape,
    "Size": plain(_size),
    "Slice": plain(_slice),
    "SpaceToDepth": _space_to_depth,
    "Split": _split,
    "Squeeze": plain(_squeeze),
    "Tile": plain(_tile),
    "Transpose": _transpose,
    "Unsqueeze": plain(_unsqueeze),
}
