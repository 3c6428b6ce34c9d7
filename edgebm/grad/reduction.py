"""Sums, means, norms and extremes over axes, running sums, and the places of extremes."""

from __future__ import annotations

from collections.abc import Callable

import onnx_ir as ir
import torch
from torch import Tensor

from edgebm.grad.op import Compute, Family, Rule, whole


def _over(function: Callable[..., Tensor]) -> Rule:
    """`function(x, axes, keepdim=)` with the axes that opset 18 has as an input."""

    def rule(node: ir.Node) -> Compute:
        keep = node.attributes.get_int("keepdims", 1) != 0
        empty_is_none = node.attributes.get_int("noop_with_empty_axes", 0) != 0

        def compute(x: Tensor, axes: Tensor | None = None) -> Tensor:
            listed = [] if axes is None else whole(axes)
            if listed or not empty_is_none:
                return function(x, listed or list(range(x.ndim)), keepdim=keep)
            # Over no axis: what the op does to a single number is still done.
            return function(x.unsqueeze(-1), [-1], keepdim=False)

        return compute

    return rule


def _integers_too(function: Callable[..., Tensor]) -> Callable[..., Tensor]:
    """The dtype of x, which torch's sums widen and its norms refuse."""

    def reduced(x: Tensor, axes: list[int], *, keepdim: bool) -> Tensor:
        return function(x, axes, keepdim=keepdim).to(x.dtype)

    return reduced


def _l1(x: Tensor, axes: list[int], *, keepdim: bool) -> Tensor:
    return x.abs().sum(axes, keepdim=keepdim)


def _l2(x: Tensor, axes: list[int], *, keepdim: bool) -> Tensor:
    """The gradient of a row of zeros is zero."""
    wide = x if x.is_floating_point() else x.double()
    norm: Tensor = torch.linalg.vector_norm(wide, 2, axes, keepdim=keepdim)
    return norm


def _log_sum(x: Tensor, axes: list[int], *, keepdim: bool) -> Tensor:
    return x.sum(axes, keepdim=keepdim).log()


def _product(x: Tensor, axes: list[int], *, keepdim: bool) -> Tensor:
    for axis in sorted((axis % max(x.ndim, 1) for axis in axes), reverse=True):
        x = x.prod(axis, keepdim=keepdim)
    return x


def _sum_of_squares(x: Tensor, axes: list[int], *, keepdim: bool) -> Tensor:
    return x.square().sum(axes, keepdim=keepdim)


def _place(function: Callable[..., Tensor]) -> Rule:
    """Where the extreme of an axis is: the first place, or the last. No gradient passes."""

    def rule(node: ir.Node) -> Compute:
        axis = node.attributes.get_int("axis", 0)
        keep = node.attributes.get_int("keepdims", 1) != 0
        last = node.attributes.get_int("select_last_index", 0) != 0

        def compute(x: Tensor) -> Tensor:
            if not last:
                return function(x, axis, keepdim=keep)
            return x.shape[axis] - 1 - function(x.flip(axis), axis, keepdim=keep)

        return compute

    return rule


def _running_sum(node: ir.Node) -> Compute:
    exclusive = node.attributes.get_int("exclusive", 0) == 1
    backwards = node.attributes.get_int("reverse", 0) == 1

    def compute(x: Tensor, axis: Tensor) -> Tensor:
        (along,) = whole(axis)
        source = x.flip(along) if backwards else x
        total = source.cumsum(along, dtype=x.dtype)
        if exclusive:
            total = total - source
        return total.flip(along) if backwards else total

    return compute


def _top(node: ir.Node) -> Compute:
    """Of equal elements the one with the lower index comes first."""
    axis = node.attributes.get_int("axis", -1)
    largest = node.attributes.get_int("largest", 1) == 1

    def compute(x: Tensor, k: Tensor) -> tuple[Tensor, ...]:
        values, places = x.sort(dim=axis, descending=largest, stable=True)
        (count,) = whole(k)
        return values.narrow(axis, 0, count), places.narrow(axis, 0, count)

    return compute


OPS: Family = {
    "ArgMax": _place(torch.argmax),
    "ArgMin": _place(torch.argmin),
    "CumSum": _running_sum,
    "ReduceL1": _over(_integers_too(_l1)),
    "ReduceL2": _over(_integers_too(_l2)),
    "ReduceLogSum": _over(_log_sum),
    "ReduceLogSumExp": _over(torch.logsumexp),
    "ReduceMax": _over(torch.amax),
    "ReduceMean": _over(torch.mean),
    "ReduceMin": _over(torch.amin),
    "ReduceProd": _over(_integers_too(_product)),
    "ReduceSum": _over(_integers_too(torch.sum)),
    "ReduceSumSquare": _over(_integers_too(_sum_of_squares)),
    "TopK": _top,
}
