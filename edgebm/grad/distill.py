"""A student graph is taught by a teacher graph, on samples without labels."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from edgebm.errors import DataError, TrainingDiverged
from edgebm.grad.batch_axes import batch_axes
from edgebm.grad.batches import Shuffled
from edgebm.grad.checkpoint import Checkpoint
from edgebm.grad.fit import Fitted, Place, Schedule, Task, fit
from edgebm.grad.lesson import Pair, Plan, Probe, planned
from edgebm.grad.module import GraphModule, write_back
from edgebm.grad.precision import Choice, chosen
from edgebm.grad.rows import Alike, Rows, Samples
from edgebm.grad.taught import Batches, Judge, Source
from edgebm.grad.teaching import Teaching
from edgebm.grad.terms import Lesson
from edgebm.grad.world import World
from edgebm.ir.model import Model
from edgebm.ir.trainable import weights_to_train

_HELD_OUT, _MOST_HELD_OUT = 5, 512  # the last fifth of the samples, but no more than so many
_PROBED = 64


@dataclass(frozen=True, slots=True)
class Conditions:
    """Where it is computed, in what precision, and where its state is kept meanwhile.

    Weights named in `masks` stay zero where their mask is.
    """

    world: World = field(default_factory=World)
    precision: Choice = "auto"
    checkpoint: Checkpoint | None = None
    masks: Mapping[str, NDArray[np.bool_]] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Taught:
    """What came of it. `left_out` are values that were not compared, each with a reason."""

    fitted: Fitted
    changed: tuple[str, ...]
    notes: tuple[str, ...]
    left_out: tuple[tuple[str, str], ...]


def distill(
    student: Model,
    teacher: Model,
    samples: Samples,
    teaching: Teaching,
    *,
    conditions: Conditions | None = None,
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> Taught:
    """Train the weights of `student`, in place, until its outputs are near the teacher's.

    The last fifth of the samples (512 at most) judges and is not learned from. Kept are the
    weights that did best there, those at the start among them.

    Args:
        student: canonical; its inputs and outputs are those of the teacher.
        teacher: canonical; not changed.
        samples: what both read; `samples.labels` are looked at where labels are to be learned.
        teaching: losses, schedule and data.
        conditions: None is one process, on the CPU or its GPU.
        progress: called after each step with the steps done and their number.

    Raises:
        UnsupportedModel: an op that has no gradient here; all of them.
        TrainingDiverged: the loss became infinite before anything was better.
        DataError: fewer than two samples.
    """
    conditions = conditions or Conditions()
    if len(samples) < 2:
        raise DataError(
            f"teaching a student needs at least 2 samples, not {len(samples)}",
            hint="give more with -d; a few hundred are a start, labels are not needed",
        )
    pair = _pair(student, teacher, teaching, conditions.world)
    work = _Work(pair, samples, teaching, conditions)
    task, schedule = work.task(), work.schedule()
    place = Place(conditions.world, work.precision, conditions.checkpoint)
    fitted = fit(pair.pupil, task, schedule, seed=teaching.seed, progress=progress, place=place)
    if fitted.ended == "diverged" and not fitted.best < fitted.before:
        raise TrainingDiverged(
            f"the loss is no number after {fitted.steps} steps at a learning rate of up to "
            f"{schedule.rate:g}, and nothing before it was better than the start",
            hint=f"give a lower learning rate, such as {schedule.rate / 4:g}",
            details={"steps": fitted.steps, "rate": schedule.rate},
        )
    changed = write_back(pair.pupil, student)
    return Taught(fitted, tuple(changed), tuple(work.notes(fitted)), tuple(work.plan.left_out))


def _pair(student: Model, teacher: Model, teaching: Teaching, world: World) -> Pair:
    weights = weights_to_train(student, tables=teaching.train_tables)
    pupil = GraphModule(student, trainable=weights.__contains__).to(world.device)
    master = GraphModule(teacher, trainable=lambda label: False).to(world.device)
    return Pair(student, teacher, pupil.eval(), master.eval())


class _Work:
    """Everything that the loop needs, made of models and samples."""

    def __init__(
        self, pair: Pair, samples: Samples, teaching: Teaching, conditions: Conditions
    ) -> None:
        self.pair, self._teaching, self._world = pair, teaching, conditions.world
        self._masks = conditions.masks
        self.precision = chosen(
            conditions.precision,
            conditions.world.device,
            convolutions=any(True for _ in pair.student.nodes("Conv", "ConvTranspose")),
        )
        rows = Rows(samples)
        seen = len(rows) - min(max(1, len(rows) // _HELD_OUT), _MOST_HELD_OUT)
        self._seen, self._held = torch.arange(seen), torch.arange(seen, len(rows))
        labels: NDArray[Any] | None = getattr(samples, "labels", None)
        used = labels if teaching.weights.labels else None
        self._source = Source(rows, self._axes(rows), pair.master, used)
        self.plan = self._planned(labels)

    def task(self) -> Task:
        size = min(self._teaching.batch, len(self._seen))
        order = Shuffled(len(self._seen), size, self._teaching.seed)
        lesson = self.plan.lesson.to(self._world.device)
        batches = Batches(
            self._source, order, self._seen, lesson.wants, unchanged, self._world, self.precision
        )
        # Inner values are a means; what counts is what comes out.
        judged = Lesson(self.plan.outputs or self.plan.others)
        judge = Judge(self._source, self._held, judged, self._world.device)
        tensors = {k: torch.from_numpy(np.array(mask)) for k, mask in self._masks.items()}
        return Task(batches, lesson, judge, tensors)

    def schedule(self) -> Schedule:
        schedule, epochs = self._teaching.schedule, self._teaching.epochs
        if epochs is None:
            return schedule
        size = min(self._teaching.batch, len(self._seen))
        return replace(schedule, steps=max(1, round(epochs * len(self._seen) / size)))

    def notes(self, fitted: Fitted) -> list[str]:
        """Sentences for the report."""
        schedule = self.schedule()
        found = [f"trained in {self.precision.name}: {self.precision.why}"]
        if fitted.planned < schedule.steps or fitted.ended == "out of time":
            found.append(
                f"{fitted.planned} steps were planned by the time that this machine takes for "
                "one, so runs elsewhere may differ"
            )
        if fitted.ended == "diverged":
            found.append(
                f"the loss was no number after {fitted.steps} steps; the best weights before it "
                f"were kept; a learning rate below {schedule.rate:g} may do better"
            )
        if self._source.axes is None:
            found.append("samples were computed one at a time: the graph fits one sample only")
        return found

    def _axes(self, rows: Rows) -> dict[str, int] | None:
        """The batch axes, told by the first two samples of equal shapes."""
        first = next((each for each in rows.picked(self._seen[:_PROBED]) if len(each) > 1), None)
        if first is None:
            return None
        two = Alike(first.numbers[:2], {k: v[:2] for k, v in first.columns.items()})
        return batch_axes((self.pair.pupil, self.pair.master), two)

    def _planned(self, labels: NDArray[Any] | None) -> Plan:
        part = max(self._source.parts(self._seen[:_PROBED]), key=len)
        feeds = {k: v.to(self._world.device) for k, v in self._source.feeds(part).items()}
        picked = None if labels is None else labels[part.numbers.numpy()]
        return planned(self.pair, Probe(feeds, picked), self._teaching)


def unchanged(feeds: dict[str, Tensor], generator: torch.Generator) -> dict[str, Tensor]:
    """No augmentation."""
    return feeds
