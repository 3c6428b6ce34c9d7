"""Batches for a student with what its teacher makes of them, and a judge of the student."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from numpy.typing import NDArray
from torch import Tensor

from edgebm.grad.augment import Draws, Way, changed, draw, mixed
from edgebm.grad.batches import Shuffled
from edgebm.grad.module import GraphModule
from edgebm.grad.precision import F32, Precision
from edgebm.grad.rows import Alike, Rows
from edgebm.grad.task import Part
from edgebm.grad.terms import INSIDE, LABELS, Lesson
from edgebm.grad.trimming import Padding
from edgebm.grad.world import World

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
    padding: Padding | None = None

    def parts(self, numbers: Tensor) -> list[Alike]:
        """These samples in as few parts as can be computed at once."""
        alike = self.rows.picked(numbers)
        if self.axes is not None:
            return alike
        return [one for each in alike for one in each.single()]

    def feeds(self, part: Alike) -> dict[str, Tensor]:
        """All samples of `part`, without the positions that none of them has."""
        if self.axes is None:
            return {k: v[0] for k, v in part.columns.items()}
        joined = part.joined(self.axes)
        return joined if self.padding is None else self.padding.cut(joined)

    @torch.no_grad()
    def targets(
        self, feeds: Mapping[str, Tensor], wants: Sequence[str], part: Alike
    ) -> dict[str, Tensor]:
        """What the teacher makes of `feeds`, labels, and which positions count."""
        found = self.master(feeds, list(wants)) if wants else {}
        if self.labels is not None:
            found[LABELS] = torch.from_numpy(self.labels[part.numbers.numpy()])
        if self.padding is not None:
            found[INSIDE] = feeds[self.padding.mask]
        return found


@dataclass(frozen=True, slots=True)
class Batches:
    """Parts of the batch of a step: this process's share of it, changed by `augment`."""

    source: Source
    order: Shuffled
    wants: tuple[str, ...]
    augment: tuple[Way, ...] = ()
    world: World = World()  # noqa: RUF009 - a value
    precision: Precision = F32

    def __call__(self, step: int, generator: torch.Generator) -> list[Part]:
        whole = self.order.batch(step)
        drawn = draw(self.augment, len(whole), generator)
        mine = torch.arange(len(whole))[self.world.rank :: self.world.size]
        found = []
        for part in self.source.parts(whole[mine]):
            feeds = self._changed(part, whole, drawn)
            feeds = placed(feeds, self.world.device)
            with self.precision.cast(self.world.device):
                targets = self.source.targets(feeds, self.wants, part)
            found.append(Part(feeds, targets, len(part) / len(whole)))
        return found

    def _changed(self, part: Alike, whole: Tensor, drawn: Draws) -> dict[str, Tensor]:
        feeds = self.source.feeds(part)
        if not drawn:
            return feeds
        axes = self.source.axes or dict.fromkeys(feeds, 0)
        # A sample may come twice in a batch that ends one round and begins the next.
        at = (whole == part.numbers[:, None]).int().argmax(1)
        mine = {way: numbers[at] for way, numbers in drawn.items()}
        if "mixup" in mine:
            (other,) = self.source.rows.picked(whole[mine["partners"]])
            others = self.source.feeds(other)
            for k, x in feeds.items():
                if x.is_floating_point():
                    feeds[k] = mixed(x, others[k], mine["mixup"], axes[k])
        return changed(feeds, axes, mine)


def placed(feeds: Mapping[str, Tensor], device: torch.device) -> dict[str, Tensor]:
    """On `device`, and images with their channels last in memory: 1.2 to 1.4 times as fast."""
    images = {k for k, v in feeds.items() if v.ndim == 4 and v.is_floating_point()}
    return {
        k: v.to(device, memory_format=torch.channels_last) if k in images else v.to(device)
        for k, v in feeds.items()
    }


class Judge:
    """The mean of an objective over samples that were held out."""

    def __init__(
        self, source: Source, numbers: Tensor, objective: Lesson, device: torch.device
    ) -> None:
        self._objective, self._device = objective, device
        self._held: list[Part] = []
        for first in range(0, len(numbers), _JUDGED):
            for part in source.parts(numbers[first : first + _JUDGED]):
                feeds = placed(source.feeds(part), device)
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
