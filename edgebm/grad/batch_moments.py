"""BatchNormalization in training: by the moments of the batch, of all processes together."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, distributed
from torch.autograd.function import once_differentiable

from edgebm.errors import UsageError
from edgebm.grad.op import Compute

_SHARE = 0.1
"""Of a batch in the running moments; torch's default."""


def normalized(label: str, epsilon: float) -> Compute:
    """By mean and variance of each channel of the batch, with gradients through both.

    The running moments take a tenth of the batch's, in place: of the mean, and of the variance
    with n - 1. Where `torch.distributed` runs several processes the batch is that of all of
    them together; each must have as many samples.

    Raises (when called):
        UsageError: the batch has one number per channel.

    Source:
        Ioffe & Szegedy 2015, "Batch normalization", arXiv:1502.03167, algorithms 1 and 2.
    """

    def compute(x: Tensor, scale: Tensor, bias: Tensor, mean: Tensor, var: Tensor) -> Tensor:
        running = (mean.detach(), var.detach())
        processes = _processes()
        count = x.numel() // x.shape[1] * processes
        if count < 2:
            raise UsageError(
                f"BatchNormalization '{label}' got one number per channel, which has no variance",
                hint="train with batches of two samples or more, or leave the module in eval mode",
            )
        if processes > 1:
            return _of_all(x, (scale, bias), running, epsilon)
        cudnn = torch.backends.cudnn.enabled
        return torch.batch_norm(x, scale, bias, *running, True, _SHARE, epsilon, cudnn)  # noqa: FBT003

    return compute


def with_moments(epsilon: float, keep: float) -> Compute:
    """What `training_mode=1` in the graph asks for: (y, new mean, new variance), n as divisor.

    The new moments are outputs; the old ones stay.
    """

    def compute(x: Tensor, *given: Tensor) -> tuple[Tensor, ...]:
        scale, bias, mean, var = given
        batch, spread = _moments(x)
        y = _applied(x, (scale, bias), batch, spread, epsilon)
        return y, keep * mean + (1 - keep) * batch, keep * var + (1 - keep) * spread

    return compute


def _processes() -> int:
    if not distributed.is_available() or not distributed.is_initialized():
        return 1
    return distributed.get_world_size()


class _Sum(torch.autograd.Function):
    """The sum over all processes. Each reads it, so its gradient is the sum over all as well."""

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        total = x.clone()
        distributed.all_reduce(total)
        return total

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, received: Tensor) -> Tensor:
        total = received.contiguous().clone()
        distributed.all_reduce(total)
        return total


def _mean_of_all(x: Tensor) -> Tensor:
    total: Tensor = _Sum.apply(x)  # type: ignore[no-untyped-call]
    return total / distributed.get_world_size()


def _of_all(
    x: Tensor, affine: tuple[Tensor, Tensor], running: tuple[Tensor, Tensor], epsilon: float
) -> Tensor:
    axes = [i for i in range(x.ndim) if i != 1]
    wide = x.float() if x.dtype in (torch.float16, torch.bfloat16) else x
    mean = _mean_of_all(wide.mean(axes))
    spread = _mean_of_all((wide - _per_channel(mean, x)).square().mean(axes))
    with torch.no_grad():
        count = x.numel() // x.shape[1] * distributed.get_world_size()
        for held, new in zip(running, (mean, spread * (count / (count - 1))), strict=True):
            held.lerp_(new.to(held.dtype), _SHARE)
    return _applied(wide, affine, mean, spread, epsilon).to(x.dtype)


def _moments(x: Tensor) -> tuple[Tensor, Tensor]:
    axes = [i for i in range(x.ndim) if i != 1]
    return x.mean(axes), x.var(axes, correction=0)


def _applied(
    x: Tensor, affine: tuple[Tensor, Tensor], mean: Tensor, var: Tensor, epsilon: float
) -> Tensor:
    gain = affine[0] * torch.rsqrt(var + epsilon)
    shift = affine[1] - mean * gain
    return x * _per_channel(gain, x) + _per_channel(shift, x)


def _per_channel(vector: Tensor, x: Tensor) -> Tensor:
    return vector.reshape(-1, *[1] * (x.ndim - 2))
