"""Up or down, for each weight, as something that can be learned."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from edgebm.grad.losses import Objective, Tensors
from edgebm.grad.simulated import RoundedWeight

STEP = "@step"
"""Among the targets of a batch: how much of the training is done, 0 to 1."""
_STRETCH, _BELOW = 1.2, 0.1  # of the sigmoid: it reaches 0 and 1 for finite numbers
_STEEP, _FLAT = 20.0, 2.0  # powers of the pull towards 0 and 1, at first and at last


class SoftRounding:
    """A tap that rounds a weight down, up, or while it is trained to somewhere between.

    With h = clip(1.2 sigmoid(v) - 0.1, 0, 1) a weight is (floor(w / step) + h) * step, cut to the
    grid. In evaluation h is 0 or 1.

    Source:
        Nagel et al. 2020, "AdaRound", arXiv:2004.10568, section 3.2 (equations 22 and 23).
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
    """Errors of a stage's outputs, each relative to what rounding to the nearest does to it.

    On top comes a pull of every h towards 0 or 1, whichever is nearer, that reaches wider the
    longer it is trained.

    Source:
        Nagel et al. 2020, arXiv:2004.10568, section 3.2 (equations 21 and 24).
    """

    def __init__(
        self, errors: Mapping[str, float], roundings: Mapping[str, SoftRounding],
        pull: float, warmup: float,
    ) -> None:  # fmt: skip
        super().__init__()
        self.fetch = tuple(errors)
        self._errors, self._roundings = dict(errors), list(roundings.values())
        self._pull, self._warmup = pull, warmup

    def forward(self, got: Tensors, want: Tensors) -> Tensor:
        terms = [
            (got[label] - want[label]).square().mean() / error
            for label, error in self._errors.items()
        ]
        loss = torch.stack(terms).mean()
        done = float(want[STEP])
        if done < self._warmup:
            return loss
        part = (done - self._warmup) / (1 - self._warmup)
        power = _FLAT + (_STEEP - _FLAT) * (1 - part)
        shares = torch.cat([each.share().reshape(-1) for each in self._roundings])
        return loss + self._pull * (1 - (2 * shares - 1).abs().pow(power)).mean()
