"""Elements picked by index, and put back by index."""

from __future__ import annotations

import onnx_ir as ir
import torch
from torch import Tensor

from edgebm.grad.op import Compute, Family, plain
from edgebm.grad.recurrent import reversed_in_time

_REDUCTIONS = {"add": "sum", "mul": "prod", "max": "amax", "min": "amin"}


def _wrapped(indices: Tensor, size: int) -> Tensor:
    """Indices below zero count from the end."""
    wide = indices.to(torch.int64)
    return torch.where(wide < 0, wide + size, wide)


def _gather(node: ir.Node) -> Compute:
    axis = node.attributes.get_int("axis", 0)

    def compute(x: Tensor, indices: Tensor) -> Tensor:
        at = axis % x.ndim
        if indices.ndim == 0 and indices.is_cpu:
            return x.select(at, int(indices))
        picked = x.index_select(at, _wrapped(indices.reshape(-1), x.shape[at]))
        return picked.reshape(*x.shape[:at], *indices.shape, *x.shape[at + 1 :])

    return compute


def _gather_elements(node: ir.Node) -> Compute:
    axis = node.attributes.get_int("axis", 0)
    return lambda x, indices: x.gather(axis, _wrapped(indices, x.shape[axis]))


def _flat_places(indices: Tensor, sizes: torch.Size) -> Tensor:
    """One number for each row of `indices` [..., k] into the first k of `sizes`."""
    flat = torch.zeros(indices.shape[:-1], dtype=torch.int64, device=indices.device)
    for axis in range(indices.shape[-1]):
        flat = flat * sizes[axis] + _wrapped(indices[..., axis], sizes[axis])
    return flat


def _gather_nd(node: ir.Node) -> Compute:
    batch = node.attributes.get_int("batch_dims", 0)

    def compute(x: Tensor, indices: Tensor) -> Tensor:
        k = indices.shape[-1]
        lead, inner = x.shape[:batch], x.shape[batch : batch + k]
        rows = x.reshape(lead.numel() * inner.numel(), *x.shape[batch + k :])
        places = _flat_places(indices, inner)
        if batch:
            first = torch.arange(lead.numel(), device=x.device) * inner.numel()
            places = places + first.reshape(*lead, *[1] * (places.ndim - batch))
        picked = rows.index_select(0, places.reshape(-1))
        return picked.reshape(*indices.shape[:-1], *x.shape[batch + k :])

    return compute


def _scatter_elements(node: ir.Node) -> Compute:
    axis = node.attributes.get_int("axis", 0)
    how = _REDUCTIONS.get(node.attributes.get_string("reduction", "none"))

    def compute(x: Tensor, indices: Tensor, updates: Tensor) -> Tensor:
        places = _wrapped(indices, x.shape[axis])
        if how is None:
            return x.scatter(axis, places, updates)
        return x.scatter_reduce(axis, places, updates, how)

    return compute


def _scatter_nd(node: ir.Node) -> Compute:
    how = _REDUCTIONS.get(node.attributes.get_string("reduction", "none"))

    def compute(x: Tensor, indices: Tensor, updates: Tensor) -> Tensor:
        k = indices.shape[-1]
        rest = x.shape[k:]
        rows = x.reshape(x.shape[:k].numel(), rest.numel())
        places = _flat_places(indices, x.shape[:k]).reshape(-1, 1).expand(-1, rest.numel())
        given = updates.reshape(places.shape)
        if how is None:
            return rows.scatter(0, places, given).reshape(x.shape)
        return rows.scatter_reduce(0, places, given, how).reshape(x.shape)

    return compute


def _non_zero(x: Tensor) -> Tensor:
    return torch.nonzero(x).t()


def _compress(node: ir.Node) -> Compute:
    axis = node.attributes.get_int("axis", None)

    def compute(x: Tensor, condition: Tensor) -> Tensor:
        kept = torch.nonzero(condition).reshape(-1)
        return x.reshape(-1).index_select(0, kept) if axis is None else x.index_select(axis, kept)

    return compute


def _reverse_sequence(node: ir.Node) -> Compute:
    time = node.attributes.get_int("time_axis", 0)

    def compute(x: Tensor, lengths: Tensor) -> Tensor:
        # The standard has time and batch on the first two axes, in either order.
        y = reversed_in_time(x if time == 0 else x.transpose(0, 1), lengths)
        return y if time == 0 else y.transpose(0, 1)

    return compute


OPS: Family = {
    "Compress": _compress,
    "Gather": _gather,
    "GatherElements": _gather_elements,
    "GatherND": _gather_nd,
    "NonZero": plain(_non_zero),
    "ReverseSequence": _reverse_sequence,
    "ScatterElements": _scatter_elements,
    "ScatterND": _scatter_nd,
}
