"""What training changes of a module, and the best of it so far."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping

import torch
from torch import Tensor, nn


class Keeper:
    """The weights that a judge liked best, low being good."""

    def __init__(self, module: nn.Module, judge: Callable[[], float]) -> None:
        self._module, self._judge = module, judge
        self._at_start = {k: b.clone() for k, b in _statistics(module)}
        self.kept: dict[str, Tensor] = {}
        self.best, self.since_best = math.inf, 0

    @torch.no_grad()
    def look(self) -> float:
        """Judge the module; the first time, and where it is better, its weights are kept."""
        found = self._judge()
        if not self.kept or found < self.best:
            self.best, self.since_best = found, 0
            self.kept = {k: held.clone() for k, held in self.changing().items()}
        else:
            self.since_best += 1
        return found

    @torch.no_grad()
    def restore(self) -> None:
        """Put the best weights back, and statistics that have moved since to where they were."""
        self.put(self.kept)

    def changing(self) -> dict[str, Tensor]:
        """Parameters that are trained, and statistics that differ from those at the start."""
        found: dict[str, Tensor] = {
            k: p.detach() for k, p in self._module.named_parameters() if p.requires_grad
        }
        found.update((k, b) for k, b in _statistics(self._module) if self._has_moved(k, b))
        return found

    @torch.no_grad()
    def put(self, held: Mapping[str, Tensor]) -> None:
        """Take over `held`; a statistic that is not in it is as at the start."""
        for label, parameter in self._module.named_parameters():
            if parameter.requires_grad and label in held:
                parameter.copy_(held[label])
        for label, buffer in _statistics(self._module):
            buffer.copy_(held.get(label, self._at_start[label]))

    def _has_moved(self, label: str, buffer: Tensor) -> bool:
        return not torch.equal(buffer, self._at_start[label])


def _statistics(module: nn.Module) -> list[tuple[str, Tensor]]:
    """Floating-point buffers: all that a module in training mode may write to."""
    return [(k, b) for k, b in module.named_buffers() if b.is_floating_point()]
