"""Up or down, for each weight, as something that can be learned."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from edgebm.grad.losses import Objective, Tensors
from edgebm.grad.simulated import RoundedWeight

_STRETCH, _BELOW = 1.2, 0.1  # of the sigmoid: it reaches 0 and 1 for finite numbers
_DECIDED = 20.0  # v of weights that are decided: no gradient reaches them


class SoftRounding:
    """A tap that rounds a weight down, up, or while it is trained to somewhere between.

    With h = clip(1.2 sigmoid(v) - 0.1, 0, 1) a weight is (floor(w / step) + h) * step, cut to the
    grid. In evaluation h is 0 or 1.

    Source:
        Nagel et al. 2020, "AdaRound", arXiv:2004.10568, section 3.2 (h); Li & Panda 2024,
        "TesseraQ", arXiv:2410.19103, section 3 (weights are decided a part at a time, in place
        of a penalty: that takes hundreds of steps, not thousands).
    """

    def __init__(
        self, weight: RoundedWeight, array: NDArray[np.float32], v: nn.Parameter, module: nn.Module
    ) -> None:
        self._v, self._module, self._high = v, module, weight.high
        self._step = torch.from_numpy(weight.step)
        self._floor = torch.from_numpy(np.floor(_exact(array, weight)).astype(np.float32))

    def __call__(self, w: Tensor) -> Tensor:
        return self.integers() * self._step

    def integers(self) -> Tensor:
        """What the weights are rounded to; whole numbers in evaluation."""
        h = self.share()
        if not self._module.training:
            h = (h >= 0.5).to(h.dtype)
        return torch.clamp(self._floor + h, -self._high, self._high)

    @torch.no_grad()
    def harden(self, part: float) -> None:
        """Decide the given part of the weights for good: those nearest to a decision.

        The others go on, and make up for what that cost.
        """
        count = round(part * self._v.numel())
        if count:
            sure = self._v.abs().reshape(-1)
            least = torch.topk(sure, count).values[-1]
            self._v.copy_(torch.where(self._v.abs() >= least, _DECIDED * self._v.sign(), self._v))

    def share(self) -> Tensor:
        """How far up each weight is rounded, 0 to 1."""
        return torch.clamp(_STRETCH * torch.sigmoid(self._v) - _BELOW, 0.0, 1.0)


def start(array: NDArray[np.float32], weight: RoundedWeight) -> NDArray[np.float32]:
    """The v with which a weight is not rounded at all."""
    exact = _exact(array, weight)
    share = np.clip(exact - np.floor(exact), 1e-3, 1 - 1e-3)
    inner = (share + _BELOW) / _STRETCH
    return np.log(inner / (1 - inner)).astype(np.float32)


def _exact(array: NDArray[np.float32], weight: RoundedWeight) -> NDArray[np.float64]:
    return array.astype(np.float64) / weight.step


class Reconstruction(Objective):
    """Errors of a stage's outputs, each relative to what rounding to the nearest does to it."""

    def __init__(self, errors: Mapping[str, float]) -> None:
        super().__init__()
        self.fetch = tuple(errors)
        self._errors = dict(errors)

    def forward(self, got: Tensors, want: Tensors) -> Tensor:
        terms = [
            (got[label] - want[label]).square().mean() / error
            for label, error in self._errors.items()
        ]
        return torch.stack(terms).mean()
