"""Ops that move elements and know shapes; gradients go back the way the elements came."""

from __future__ import annotations

import numpy as np
import onnx_ir as ir
import torch
from torch import Tensor

from edgebm.grad.op import Compute, Family, plain, whole
from edgebm.grad.tensors import to_tensor


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


def _gather(node: ir.Node) -> Compute:
    axis = node.attributes.get_int("axis", 0)

    def compute(x: Tensor, indices: Tensor) -> Tensor:
        at = axis % x.ndim
        flat = indices.reshape(-1).to(torch.int64)
        picked = x.index_select(at, torch.where(flat < 0, flat + x.shape[at], flat))
        return picked.reshape(*x.shape[:at], *indices.shape, *x.shape[at + 1 :])

    return compute


def _shape(node: ir.Node) -> Compute:
    start, end = node.attributes.get_int("start", 0), node.attributes.get_int("end", None)
    return lambda x: torch.tensor(list(x.shape)[start:end], dtype=torch.int64)


def _expand(x: Tensor, shape: Tensor) -> Tensor:
    return x.expand(np.broadcast_shapes(tuple(x.shape), tuple(whole(shape))))


def _constant_of_shape(node: ir.Node) -> Compute:
    value = node.attributes.get("value")
    fill = torch.zeros(1) if value is None else to_tensor(value.as_tensor().numpy())
    return lambda shape: fill.reshape(()).expand(whole(shape)).clone()


OPS: Family = {
    "Concat": _concat,
    "ConstantOfShape": _constant_of_shape,
    "Expand": plain(_expand),
    "Flatten": _flatten,
    "Gather": _gather,
    "Reshape": _reshape,
    "Shape": _shape,
    "Slice": plain(_slice),
    "Split": _split,
    "Squeeze": plain(_squeeze),
    "Transpose": _transpose,
    "Unsqueeze": plain(_unsqueeze),
}
