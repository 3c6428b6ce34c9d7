"""Batches for a student with what its teacher makes of them, and a judge of the student."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from numpy.typing import NDArray
from torch import Tensor

from edgebm.grad.batches import Shuffled
from edgebm.grad.module import GraphModule
from edgebm.grad.precision import F32, Precision
from edgebm.grad.rows import Alike, Rows
from edgebm.grad.task import Part
from edgebm.grad.terms import LABELS, Lesson
from edgebm.grad.world import World

Augment = Callable[[dict[str, Tensor], torch.Generator], dict[str, Tensor]]
_JUDGED = 64  # samples that are judged at once


@dataclass(frozen=True, slots=True)
class Source:
    """Samples, how they are joined, and who answers them.

    `axes` has the batch axis of each input; None where samples are computed one at a time.
    `labels` are those of all samples, or None.
    """

    rows: Rows
    axes: Mapping[str, int] | None
    master: GraphModule
    labels: NDArray[Any] | None = None

    def parts(self, numbers: Tensor) -> list[Alike]:
        """These samples in as few parts as can be computed at once."""
        alike = self.rows.picked(numbers)
        if self.axes is not None:
            return alike
        return [one for each in alike for one in each.single()]

    def feeds(self, part: Alike) -> dict[str, Tensor]:
        if self.axes is None:
            return {k: v[0] for k, v in part.columns.items()}
        return part.joined(self.axes)

    @torch.no_grad()
    def targets(
        self, feeds: Mapping[str, Tensor], wants: Sequence[str], part: Alike
    ) -> dict[str, Tensor]:
        """What the teacher makes of `feeds`, and the labels of the samples."""
        found = self.master(feeds, list(wants)) if wants else {}
        if self.labels is not None:
            found[LABELS] = torch.from_numpy(self.labels[part.numbers.numpy()])
        return found


@dataclass(frozen=True, slots=True)
class Batches:
    """Parts of the batch of a step: this process's share of it."""

    source: Source
    order: Shuffled
    numbers: Tensor  # of the samples to learn from
    wants: tuple[str, ...]
    augment: Augment
    world: World
    precision: Precision = F32

    def __call__(self, step: int, generator: torch.Generator) -> list[Part]:
        whole = self.numbers[self.order.batch(step)]
        found = []
        for part in self.source.parts(whole[self.world.rank :: self.world.size]):
            feeds = self.augment(self.source.feeds(part), generator)
            feeds = {k: v.to(self.world.device) for k, v in feeds.items()}
            with self.precision.cast(self.world.device):
                targets = self.source.targets(feeds, self.wants, part)
            found.append(Part(feeds, targets, len(part) / len(whole)))
        return found


class Judge:
    """The mean of an objective over samples that were held out."""

    def __init__(
        self, source: Source, numbers: Tensor, objective: Lesson, device: torch.device
    ) -> None:
        self._objective, self._device = objective, device
        self._held: list[Part] = []
        for first in range(0, len(numbers), _JUDGED):
            for part in source.parts(numbers[first : first + _JUDGED]):
                feeds = {k: v.to(device) for k, v in source.feeds(part).items()}
                targets = source.targets(feeds, objective.wants, part)
                self._held.append(Part(feeds, targets, len(part) / len(numbers)))

    @torch.no_grad()
    def __call__(self, module: GraphModule) -> float:
        total = 0.0
        for part in self._held:
            got = module(part.feeds, list(self._objective.fetch))
            targets = {k: v.to(self._device) for k, v in part.targets.items()}
            total += part.share * float(self._objective(got, targets))
        return total
