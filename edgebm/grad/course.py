"""What the training loop needs to teach a student, made of models and samples."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from edgebm.errors import UsageError
from edgebm.grad.augment import check
from edgebm.grad.batch_axes import batch_axes
from edgebm.grad.batches import Shuffled
from edgebm.grad.fit import Schedule, Task
from edgebm.grad.lesson import Plan, planned
from edgebm.grad.pair import Pair, Probe
from edgebm.grad.precision import Precision
from edgebm.grad.rows import Alike, Rows
from edgebm.grad.taught import Batches, Judge, Source, placed
from edgebm.grad.teaching import Teaching
from edgebm.grad.terms import Lesson
from edgebm.grad.trimming import found_padding
from edgebm.grad.world import World
from edgebm.ir.zeros import zeros_to_keep

_HELD_OUT, _MOST_HELD_OUT = 5, 512  # the last fifth of the samples, but no more than so many
_PROBED = 64


class Course:
    """Batches, losses, judge and schedule; `notes` are sentences on what was found out.

    Raises:
        UsageError: see `edgebm.grad.distill.distill`.
        DataError: see there.
    """

    def __init__(
        self,
        pair: Pair,
        rows: Rows,
        labels: NDArray[Any] | None,
        teaching: Teaching,
        world: World,
    ) -> None:
        self._pair, self._teaching, self._world = pair, teaching, world
        seen = len(rows) - min(max(1, len(rows) // _HELD_OUT), _MOST_HELD_OUT)
        self._seen, self._held = torch.arange(seen), torch.arange(seen, len(rows))
        axes = self._axes(rows)
        both = [(pair.student, pair.pupil), (pair.teacher, pair.master)]
        wanted = teaching.trim_padding and axes is not None and not any(axes.values())
        padding = found_padding(rows, both) if wanted else None
        used = labels if teaching.weights.labels else None
        self._source = Source(rows, axes, pair.master, used, padding)
        # Moments of one sample, or of a few of one shape, are not those of all.
        self._moving = axes is not None and rows.alike
        self._size = self._batch_size()
        self.notes = self._told()
        self.plan = self._planned(labels)

    def task(self, precision: Precision) -> Task:
        lengths = self._lengths()
        lesson = self.plan.lesson.to(self._world.device)
        batches = Batches(
            self._source,
            Shuffled(len(self._seen), self._size, self._teaching.seed, lengths),
            lesson.wants,
            self._teaching.augment,
            self._world,
            precision,
        )
        # Values inside are a means; what counts is what comes out.
        judged = Lesson(self.plan.outputs or self.plan.others)
        held = self._held if lengths is None else self._held[lengths[self._held].argsort()]
        judge = Judge(self._source, held, judged, self._world.device)
        zeros = zeros_to_keep(self._pair.student, self._pair.pupil.trained)
        masks = {label: torch.from_numpy(np.array(mask)) for label, mask in zeros.items()}
        return Task(batches, lesson, judge, masks, self._moving)

    def schedule(self) -> Schedule:
        schedule, epochs = self._teaching.schedule, self._teaching.epochs
        if epochs is None:
            return schedule
        steps = max(1, round(epochs * len(self._seen) / self._size))
        return replace(schedule, steps=min(schedule.steps, steps))

    def _lengths(self) -> Tensor | None:
        """How long each sample is, where they differ in that."""
        if self._source.padding is not None:
            return self._source.padding.lengths
        return None if self._source.rows.alike else self._source.rows.sizes

    def _batch_size(self) -> int:
        """That of all processes together: as many samples for each of them."""
        most = min(self._teaching.batch, len(self._seen))
        size = most // self._world.size * self._world.size
        if not size:
            raise UsageError(
                f"a batch of {most} samples cannot be shared by {self._world.size} processes",
                hint="give more samples, a larger batch, or start fewer processes",
            )
        return size

    def _axes(self, rows: Rows) -> dict[str, int] | None:
        """The batch axes, told by the first two samples of equal shapes."""
        first = next((each for each in rows.picked(self._seen[:_PROBED]) if len(each) > 1), None)
        if first is None:
            return None
        two = Alike(
            first.numbers[:2], {k: v[:2].to(self._world.device) for k, v in first.columns.items()}
        )
        return batch_axes((self._pair.pupil, self._pair.master), two)

    def _planned(self, labels: NDArray[Any] | None) -> Plan:
        probes = []
        for part in self._source.parts(self._seen[:_PROBED]):
            feeds = placed(self._source.feeds(part), self._world.device)
            picked = None if labels is None else labels[part.numbers.numpy()]
            probes.append(Probe(feeds, len(part), picked))
        check(
            self._teaching.augment,
            probes[0].feeds,
            labels=self._teaching.weights.labels > 0,
            alike=self._source.rows.alike and self._source.axes is not None,
        )
        return planned(self._pair, probes, self._teaching)

    def _told(self) -> list[str]:
        found = []
        if self._size != self._teaching.batch:
            found.append(f"batches have {self._size} samples, not {self._teaching.batch}")
        if self._source.axes is None:
            found.append("samples were computed one at a time: the graph fits one sample only")
        norms = any(True for _ in self._pair.student.nodes("BatchNormalization"))
        if norms and not self._moving:
            found.append("BatchNormalization kept its moments: samples differ in shape")
        padding = self._source.padding
        if padding is not None:
            share = float(padding.lengths.sum()) / (len(padding.lengths) * self._padded())
            found.append(
                f"batches were cut to their longest sample: {100 * (1 - share):.0f} % of the "
                f"positions are padding, as input '{padding.mask}' says"
            )
        return found

    def _padded(self) -> int:
        padding = self._source.padding
        assert padding is not None
        return self._source.rows.groups[0].columns[padding.mask].shape[-1]
