"""Sums, means and extremes over axes."""

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
            if not listed and empty_is_none:
                return x
            return function(x, listed or list(range(x.ndim)), keepdim=keep)

        return compute

    return rule


OPS: Family = {
    "ReduceMax": _over(torch.amax),
    "ReduceMean": _over(torch.mean),
    "ReduceMin": _over(torch.amin),
    "ReduceSum": _over(torch.sum),
}
