"""Tensors made from numbers: of one value, ranges, triangles, rows of one hot."""

from __future__ import annotations

import math

import onnx_ir as ir
import torch
from torch import Tensor

from edgebm.grad.op import Compute, Family, NotCovered, plain, whole
from edgebm.grad.tensors import TORCH_DTYPES, to_tensor


def _constant_of_shape(node: ir.Node) -> Compute:
    value = node.attributes.get("value")
    fill = torch.zeros(1) if value is None else to_tensor(value.as_tensor().numpy())
    return lambda shape: fill.reshape(()).expand(whole(shape)).clone()


def _range(start: Tensor, limit: Tensor, delta: Tensor) -> Tensor:
    first, end, by = start.item(), limit.item(), delta.item()
    count = max(0, math.ceil((end - first) / by))
    steps = torch.arange(count, dtype=start.dtype, device=start.device)
    return steps * delta + start


def _eye_like(node: ir.Node) -> Compute:
    k, code = node.attributes.get_int("k", 0), node.attributes.get_int("dtype", None)
    dtype = None if code is None else TORCH_DTYPES.get(ir.DataType(code))
    if code is not None and dtype is None:
        raise NotCovered(f"torch has no arithmetic on {ir.DataType(code).name.lower()}")

    def compute(x: Tensor) -> Tensor:
        rows, columns = (torch.arange(size, device=x.device) for size in x.shape)
        return (columns - rows[:, None] == k).to(x.dtype if dtype is None else dtype)

    return compute


def _trilu(node: ir.Node) -> Compute:
    part = torch.triu if node.attributes.get_int("upper", 1) == 1 else torch.tril
    return lambda x, k=None: part(x, 0 if k is None else int(k))


def _one_hot(node: ir.Node) -> Compute:
    """Ids below zero count from the end; those outside of the range are nowhere hot."""
    axis = node.attributes.get_int("axis", -1)

    def compute(ids: Tensor, depth: Tensor, values: Tensor) -> Tensor:
        (count,) = whole(depth)
        at = axis % (ids.ndim + 1)
        wide = ids.to(torch.int64).unsqueeze(at)
        places = torch.arange(count, device=ids.device).reshape(-1, *[1] * (ids.ndim - at))
        off, on = values.unbind()
        return torch.where((wide == places) | (wide + count == places), on, off)

    return compute


OPS: Family = {
    "ConstantOfShape": _constant_of_shape,
    "EyeLike": _eye_like,
    "OneHot": _one_hot,
    "Range": plain(_range),
    "Trilu": _trilu,
}
