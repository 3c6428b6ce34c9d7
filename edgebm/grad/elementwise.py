"""Ops that work on each element by itself, with broadcasting."""

from __future__ import annotations

import functools
from collections.abc import Callable

import onnx_ir as ir
import torch
from torch import Tensor

from edgebm.grad.op import Compute, Family, NotCovered, plain
from edgebm.grad.tensors import TORCH_DTYPES


def _div(a: Tensor, b: Tensor) -> Tensor:
    """Whole numbers are divided towards zero, as the standard asks."""
    return torch.div(a, b, rounding_mode=None if a.is_floating_point() else "trunc")


def _pow(base: Tensor, exponent: Tensor) -> Tensor:
    """The result has the dtype of the base."""
    return torch.pow(base, exponent).to(base.dtype)


def _clip(x: Tensor, low: Tensor | None = None, high: Tensor | None = None) -> Tensor:
    return x if low is None and high is None else torch.clamp(x, low, high)


def _folded(function: Callable[[Tensor, Tensor], Tensor]) -> Compute:
    return lambda *args: functools.reduce(function, args)


def _cast(node: ir.Node) -> Compute:
    code = node.attributes.get_int("to", 0)
    dtype = TORCH_DTYPES.get(ir.DataType(code))
    if dtype is None:
        raise NotCovered(f"torch has no arithmetic on {ir.DataType(code).name.lower()}")
    return lambda x: x.to(dtype)


OPS: Family = {
    "Abs": plain(torch.abs),
    "Add": plain(torch.add),
    "And": plain(torch.logical_and),
    "Cast": _cast,
    "Clip": plain(_clip),
    "Div": plain(_div),
    "Equal": plain(torch.eq),
    "Exp": plain(torch.exp),
    "Greater": plain(torch.gt),
    "GreaterOrEqual": plain(torch.ge),
    "Identity": plain(lambda x: x),
    "Less": plain(torch.lt),
    "LessOrEqual": plain(torch.le),
    "Log": plain(torch.log),
    "Max": plain(_folded(torch.maximum)),
    "Min": plain(_folded(torch.minimum)),
    "Mul": plain(torch.mul),
    "Neg": plain(torch.neg),
    "Not": plain(torch.logical_not),
    "Or": plain(torch.logical_or),
    "Pow": plain(_pow),
    "Sqrt": plain(torch.sqrt),
    "Sub": plain(torch.sub),
    "Where": plain(torch.where),
}
