"""A GRU that resets behind its product with R, turned into one that resets in front of it."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np
import torch

from edgebm.grad.batches import Shuffled
from edgebm.grad.fit import Ended, Part, Schedule, Task, fit
from edgebm.grad.gru_cell import GruCell, Lesson, states_of
from edgebm.grad.gru_start import regressed
from edgebm.grad.losses import Each, relative_mse
from edgebm.grad.module import GraphModule
from edgebm.grad.sequences import Sequences
from edgebm.grad.tensors import to_array


@dataclass(frozen=True, slots=True)
class Turned:
    """The sister, and how near its states come to the original's, in dB.

    All figures are of sequences that had no part in it: with the old weights (`copied_db`),
    after the regression (`start_db`), and after `steps` of training (`reached_db`).
    """

    cell: GruCell
    copied_db: float
    start_db: float
    reached_db: float
    steps: int
    ended: Ended


@dataclass(frozen=True, slots=True)
class Teaching:
    """How the sister is taught: `noise` on the inputs, in units of each one's own deviation."""

    schedule: Schedule
    noise: float
    seed: int


def turned(
    cell: GruCell,
    seen: Lesson,
    held_out: Lesson,
    teaching: Teaching,
    progress: Callable[[int, int], None],
) -> Turned:
    """The sister whose states are nearest to those of `cell`.

    The start is a regression on the original's states and one on the sister's own; which of them
    is kept, and which weights of the training, is judged on `held_out`.
    """
    teacher = cell.module()
    judge = _Judge(held_out, teacher)
    best = now = cell.sister()
    copied = least = judge(best.module())
    for own_states in (False, True):
        now = regressed(cell, now, seen, own_states=own_states)
        if (found := judge(now.module())) < least:
            best, least = now, found
    student = best.module()
    task = Task(_Batches(seen, teacher, teaching), Each({"y": relative_mse}), judge)
    fitted = fit(student, task, teaching.schedule, seed=teaching.seed, progress=progress)
    w, r, b = (to_array(student.weights[key], np.dtype(np.float32)) for key in "wrb")
    return Turned(
        cell=replace(best, w=w, r=r, b=b),
        copied_db=_db(copied),
        start_db=_db(least),
        reached_db=_db(fitted.best),
        steps=fitted.steps,
        ended=fitted.ended,
    )


class _Judge:
    """Noise over signal of a cell's states on sequences it was not trained on."""

    @torch.no_grad()
    def __init__(self, held_out: Lesson, teacher: GraphModule) -> None:
        self._pairs = [(p.student, states_of(teacher, p.teacher)) for p in held_out.parts()]

    @torch.no_grad()
    def __call__(self, cell: GraphModule) -> float:
        noise = signal = 0.0
        for read, want in self._pairs:
            noise += float((states_of(cell, read) - want).double().square().sum())
            signal += float(want.double().square().sum())
        return noise / signal if signal else 0.0


class _Batches:
    """Noisy sequences for the sister, and what the original makes of as noisy ones."""

    def __init__(self, lesson: Lesson, teacher: GraphModule, teaching: Teaching) -> None:
        self._lesson, self._teacher = lesson, teacher
        self._noise = teaching.noise * lesson.student.deviation()
        size = lesson.student.batch_size()
        self._order = Shuffled(len(lesson.student), size, teaching.seed)

    def __call__(self, step: int, generator: torch.Generator) -> list[Part]:
        part = self._lesson.picked(self._order.batch(step))
        read = part.student
        added = self._noise * torch.randn(read.x.shape, generator=generator)
        noisy = Sequences(part.teacher.x + added, part.teacher.lengths, part.teacher.initial)
        with torch.no_grad():
            target = states_of(self._teacher, noisy)
        feeds = {"x": read.x + added, "n": read.lengths, "h": read.initial}
        return [Part(feeds, {"y": target})]


def _db(noise_over_signal: float) -> float:
    return math.inf if noise_over_signal == 0 else -10 * math.log10(noise_over_signal)
