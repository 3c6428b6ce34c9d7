"""Ops that work on each element by itself, with broadcasting."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

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
    x = x if low is None else x.clamp_min(_limit(low))
    return x if high is None else x.clamp_max(_limit(high))


def _limit(value: Tensor) -> Any:
    """A number where it need not be waited for: torch is faster with one."""
    return value.item() if value.is_cpu and not value.requires_grad else value


def _folded(function: Callable[[Tensor, Tensor], Tensor]) -> Compute:
    return lambda *args: functools.reduce(function, args)


def _cast(node: ir.Node) -> Compute:
    code = node.attributes.get_int("to", 0)
    dtype = TORCH_DTYPES.get(ir.DataType(code))
    if dtype is None:
        raise NotCovered(f"torch has no arithmetic on {ir.DataType(code).name.lower()}")
    return lambda x: x.to(dtype)


def _mean(*args: Tensor) -> Tensor:
    return functools.reduce(torch.add, args) / len(args)


def _mod(node: ir.Node) -> Compute:
    """The sign of the divisor, or with `fmod` that of the dividend."""
    return torch.fmod if node.attributes.get_int("fmod", 0) == 1 else torch.remainder


def _bit_shift(node: ir.Node) -> Compute:
    left = node.attributes.get_string("direction", "") == "LEFT"
    return torch.bitwise_left_shift if left else torch.bitwise_right_shift


def _is_inf(node: ir.Node) -> Compute:
    low = node.attributes.get_int("detect_negative", 1) == 1
    high = node.attributes.get_int("detect_positive", 1) == 1
    if low and high:
        return torch.isinf
    if not low and not high:
        return lambda x: torch.zeros_like(x, dtype=torch.bool)
    return torch.isposinf if high else torch.isneginf


OPS: Family = {
    "Abs": plain(torch.abs),
    "Acos": plain(torch.acos),
    "Acosh": plain(torch.acosh),
    "Add": plain(torch.add),
    "And": plain(torch.logical_and),
    "Asin": plain(torch.asin),
    "Asinh": plain(torch.asinh),
    "Atan": plain(torch.atan),
    "Atanh": plain(torch.atanh),
    "BitShift": _bit_shift,
    "BitwiseAnd": plain(torch.bitwise_and),
    "BitwiseNot": plain(torch.bitwise_not),
    "BitwiseOr": plain(torch.bitwise_or),
    "BitwiseXor": plain(torch.bitwise_xor),
    "Cast": _cast,
    "Ceil": plain(torch.ceil),
    "Clip": plain(_clip),
    "Cos": plain(torch.cos),
    "Cosh": plain(torch.cosh),
    "Div": plain(_div),
    "Equal": plain(torch.eq),
    "Erf": plain(torch.erf),
    "Exp": plain(torch.exp),
    "Floor": plain(torch.floor),
    "Greater": plain(torch.gt),
    "GreaterOrEqual": plain(torch.ge),
    "Identity": plain(lambda x: x),
    "IsInf": _is_inf,
    "IsNaN": plain(torch.isnan),
    "Less": plain(torch.lt),
    "LessOrEqual": plain(torch.le),
    "Log": plain(torch.log),
    "Max": plain(_folded(torch.maximum)),
    "Mean": plain(_mean),
    "Min": plain(_folded(torch.minimum)),
    "Mod": _mod,
    "Mul": plain(torch.mul),
    "Neg": plain(torch.neg),
    "Not": plain(torch.logical_not),
    "Or": plain(torch.logical_or),
    "Pow": plain(_pow),
    "Reciprocal": plain(torch.reciprocal),
    "Round": plain(torch.round),
    "Sign": plain(torch.sign),
    "Sin": plain(torch.sin),
    "Sinh": plain(torch.sinh),
    "Sqrt": plain(torch.sqrt),
    "Sub": plain(torch.sub),
    "Sum": plain(_folded(torch.add)),
    "Tan": plain(torch.tan),
    "Where": plain(torch.where),
    "Xor": plain(torch.logical_xor),
}
