"""Activations, and the softmax of an axis."""

from __future__ import annotations

from collections.abc import Callable

import onnx_ir as ir
import torch
from torch import Tensor
from torch.nn import functional

from edgebm.grad.op import Compute, Family, NotCovered, Rule, plain
from edgebm.ir.edit import const, input_at


def _with(function: Callable[..., Tensor], **defaults: float) -> Rule:
    """`function(x, *numbers)` with these attributes, in this order."""

    def rule(node: ir.Node) -> Compute:
        numbers = [node.attributes.get_float(key, value) for key, value in defaults.items()]
        return lambda x: function(x, *numbers)

    return rule


def _along(function: Callable[[Tensor, int], Tensor]) -> Rule:
    """`function(x, axis)`."""

    def rule(node: ir.Node) -> Compute:
        axis = node.attributes.get_int("axis", -1)
        return lambda x: function(x, axis)

    return rule


def _gelu(node: ir.Node) -> Compute:
    form = node.attributes.get_string("approximate", "none")
    return lambda x: functional.gelu(x, approximate=form)


def _selu(x: Tensor, alpha: float, gamma: float) -> Tensor:
    return gamma * functional.elu(x, alpha)


def _hard_sigmoid(x: Tensor, alpha: float, beta: float) -> Tensor:
    return torch.clamp(alpha * x + beta, 0.0, 1.0)


def _hardmax(x: Tensor, axis: int) -> Tensor:
    """One at the first maximum, zero elsewhere. No gradient passes."""
    return torch.zeros_like(x).scatter(axis, x.argmax(axis, keepdim=True), 1.0)


def _prelu(x: Tensor, slope: Tensor) -> Tensor:
    return torch.where(x < 0, slope * x, x)


def _shrink(x: Tensor, bias: float, lambd: float) -> Tensor:
    zero = torch.zeros_like(x)
    found = torch.where(x < -lambd, x + bias, torch.where(x > lambd, x - bias, zero))
    return found.to(x.dtype)


def _softplus(x: Tensor) -> Tensor:
    """Exact everywhere: torch's own goes over to x from 20 on."""
    return functional.relu(x) + torch.log1p(torch.exp(-x.abs()))


def _thresholded(x: Tensor, alpha: float) -> Tensor:
    return torch.where(x > alpha, x, torch.zeros_like(x))


def _dropout(node: ir.Node) -> Compute:
    """As in inference: nothing is dropped, and the mask is all true."""
    mode = input_at(node, 2)
    if mode is not None and (const(mode) is None or bool(const(mode))):
        raise NotCovered("whether it drops anything is not fixed to no")
    if len(node.outputs) > 1:
        return lambda x, *_: (x, torch.ones_like(x, dtype=torch.bool))
    return lambda x, *_: x


OPS: Family = {
    "Celu": _with(functional.celu, alpha=1.0),
    "Dropout": _dropout,
    "Elu": _with(functional.elu, alpha=1.0),
    "Gelu": _gelu,
    "HardSigmoid": _with(_hard_sigmoid, alpha=0.2, beta=0.5),
    "HardSwish": plain(functional.hardswish),
    "Hardmax": _along(_hardmax),
    "LeakyRelu": _with(functional.leaky_relu, alpha=0.01),
    "LogSoftmax": _along(torch.log_softmax),
    "Mish": plain(functional.mish),
    "PRelu": plain(_prelu),
    "Relu": plain(torch.relu),
    "Selu": _with(_selu, alpha=1.67326319217681884765625, gamma=1.05070102214813232421875),
    "Shrink": _with(_shrink, bias=0.0, lambd=0.5),
    "Sigmoid": plain(torch.sigmoid),
    "Softmax": _along(torch.softmax),
    "Softplus": plain(_softplus),
    "Softsign": plain(functional.softsign),
    "Tanh": plain(torch.tanh),
    "ThresholdedRelu": _with(_thresholded, alpha=1.0),
}
