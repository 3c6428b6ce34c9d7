"""Rounding to a grid and back in one step, with gradients to what is rounded and to the step."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from edgebm.grad.module import GraphModule
from edgebm.grad.simulated import RoundedPoint


class FakeQuantize(torch.autograd.Function):
    """`clamp(round(x / step), low, high) * step`, rounding straight through.

    Args of `apply`: x, the step (it broadcasts against x), the least and the largest integer less
    the zero point, and a factor for the gradient of the step.

    Source:
        Esser et al. 2020, "LSQ", arXiv:1902.08153, section 2.1 (equation 3).
    """

    @staticmethod
    def forward(
        ctx: Any, x: Tensor, step: Tensor, low: float, high: float, factor: float
    ) -> Tensor:
        exact = x / step
        rounded = torch.round(exact)
        integers = torch.clamp(rounded, low, high)
        inside = integers == rounded
        ctx.factor, ctx.shape = factor, step.shape
        # What the result grows by when the step does, per unit of the step.
        slope = torch.where(inside, integers - exact, integers) if step.requires_grad else None
        ctx.save_for_backward(inside, slope)
        return integers * step

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, received: Tensor) -> tuple[Tensor, Tensor | None, None, None, None]:
        inside, slope = ctx.saved_tensors
        of_step = None
        if slope is not None:
            of_step = (received * slope).sum_to_size(ctx.shape) * ctx.factor
        return received * inside, of_step, None, None, None


def fake_quantize(x: Tensor, step: Tensor, low: float, high: float, factor: float = 1.0) -> Tensor:
    """`x` on the grid of `step`; see `FakeQuantize`."""
    rounded: Tensor = FakeQuantize.apply(  # type: ignore[no-untyped-call]
        x, step, low, high, factor
    )
    return rounded


@dataclass(frozen=True, slots=True)
class LearnedStep:
    """A tap that rounds what it is given, with a step that training may move.

    The step is `base * exp(gain)`: it stays above zero, and moves by shares of itself, however
    small it is. `low` and `high` are the integers less the zero point. Where `gain` is None
    the step stays.

    Source:
        Jain et al. 2020, "TQT", arXiv:1903.08066, section 3.3 (the logarithm); the gradient is
        that of LSQ, and so is its factor (section 2.2 there).
    """

    base: Tensor
    low: float
    high: float
    gain: Tensor | None = None

    def __call__(self, x: Tensor) -> Tensor:
        step = self.base.to(x.device)
        if self.gain is None:
            return fake_quantize(x, step, self.low, self.high)
        shared = x.numel() / max(1, self.gain.numel())
        factor = (shared * max(self.high, 1.0)) ** -0.5
        return fake_quantize(x, step * torch.exp(self.gain), self.low, self.high, factor)

    @torch.no_grad()
    def step(self) -> Tensor:
        """The step as it is now, in the shape of `base`."""
        if self.gain is None:
            return self.base
        return self.base * torch.exp(self.gain.to(self.base.device))


def tap_points(
    module: GraphModule, points: Iterable[RoundedPoint], gains: Mapping[str, Tensor] | None = None
) -> dict[str, LearnedStep]:
    """Round the values of `module` that stand for `points`; the taps by their labels.

    `gains` are those of the steps that are learned, by the label of the point.
    """
    taps = {
        point.label: LearnedStep(
            torch.tensor(float(point.step)),
            point.low - point.zero,
            point.high - point.zero,
            None if gains is None else gains.get(point.label),
        )
        for point in points
    }
    module.taps.update(taps)
    return taps
