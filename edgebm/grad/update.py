"""From gradients to new weights: an optimizer, its rate, clipping, masks, and its state."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from edgebm.grad.schedule import Schedule

_SCALER = ("scale", "growth_factor", "backoff_factor", "growth_interval", "_growth_tracker")


class Updater:
    """Changes `parameters` by their gradients, one step after the other."""

    def __init__(
        self,
        parameters: Sequence[nn.Parameter],
        schedule: Schedule,
        scaler: torch.amp.GradScaler,
        masks: Sequence[tuple[nn.Parameter, Tensor]] = (),
    ) -> None:
        self._parameters, self._schedule = list(parameters), schedule
        self._scaler, self._masks = scaler, list(masks)
        self._optimizer = _optimizer(self._parameters, schedule)
        self._mask_weights()

    def backward(self, loss: Tensor) -> None:
        self._scaler.scale(loss).backward()  # type: ignore[no-untyped-call]

    def clear(self) -> None:
        self._optimizer.zero_grad(set_to_none=True)

    def apply(self, rate: float) -> bool:
        """Take the step; False, and no step, where a gradient is no number."""
        self._scaler.unscale_(self._optimizer)
        for parameter, mask in self._masks:
            if parameter.grad is not None:
                parameter.grad.mul_(mask)
        norm = nn.utils.clip_grad_norm_(self._parameters, self._schedule.max_norm)
        # A scaler skips such steps and tries a smaller scale.
        if not self._scaler.is_enabled() and not math.isfinite(float(norm)):
            return False
        for group in self._optimizer.param_groups:
            group["lr"] = rate
        self._scaler.step(self._optimizer)
        self._scaler.update()
        self._mask_weights()
        return True

    @torch.no_grad()
    def _mask_weights(self) -> None:
        for parameter, mask in self._masks:
            parameter.mul_(mask)

    def state(self) -> tuple[dict[str, NDArray[Any]], dict[str, Any]]:
        """Arrays by `number of the parameter/name`, and what is no array."""
        arrays = {
            f"{number}/{key}": held.detach().cpu().numpy()
            for number, parameter in enumerate(self._parameters)
            for key, held in self._optimizer.state.get(parameter, {}).items()
            if isinstance(held, Tensor)
        }
        return arrays, {"scaler": self._scaler.state_dict()}

    def restore(self, arrays: Mapping[str, NDArray[Any]], rest: Mapping[str, Any]) -> None:
        """Take over what `state` gave."""
        for label, array in arrays.items():
            number, _, key = label.partition("/")
            parameter = self._parameters[int(number)]
            # A count of steps stays on the host, as the optimizer has it.
            device = parameter.device if array.ndim else torch.device("cpu")
            held = torch.from_numpy(np.array(array)).to(device)
            self._optimizer.state[parameter][key] = held
        if rest["scaler"]:
            self._scaler.load_state_dict(dict(rest["scaler"]))


def _optimizer(parameters: Sequence[nn.Parameter], schedule: Schedule) -> torch.optim.Optimizer:
    groups = [
        {"params": [p for p in parameters if p.ndim > 1], "weight_decay": schedule.weight_decay},
        {"params": [p for p in parameters if p.ndim <= 1], "weight_decay": 0.0},
    ]
    groups = [group for group in groups if group["params"]]
    if not groups:
        groups = [{"params": [nn.Parameter(torch.zeros(1))]}]  # nothing to train
    if schedule.optimizer == "sgd":
        nesterov = schedule.momentum > 0
        return torch.optim.SGD(
            groups, schedule.rate, momentum=schedule.momentum, nesterov=nesterov
        )
    return torch.optim.AdamW(groups, schedule.rate, betas=(0.9, 0.99))
