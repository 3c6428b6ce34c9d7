"""How much is cut of a model before it is quantized: settled by bisection on measurements."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, field, replace
from functools import partial
from typing import Any

from pydantic import TypeAdapter

from edgebm.ir.model import Model
from edgebm.passes.base import Context, Skip
from edgebm.passes.catalog import AnyStep
from edgebm.passes.driver import run_passes
from edgebm.runtime.journal import Journal
from edgebm.search.cut_trial import (
    Trial,
    is_better,
    refusal,
    trial_dict,
    why_not_taken,
)
from edgebm.search.deadline import Deadline
from edgebm.search.decide import Decisions
from edgebm.search.float_race import float_race, not_faster
from edgebm.search.found import Found
from edgebm.search.job import Job, Progress
from edgebm.search.records import machine
from edgebm.search.seconds import Seconds
from edgebm.search.small_models import small_model_timer
from edgebm.search.stages import Stages
from edgebm.search.students import Students
from edgebm.search.summary import speedup
from edgebm.search.target import Search
from edgebm.target import Target

_STEPS: TypeAdapter[AnyStep] = TypeAdapter(AnyStep)
_STAGE, _TEACHING = "prune and teach", "distill"


@dataclass(slots=True)
class SparsitySearch:
    """The search for one target of a recipe that also makes the model smaller.

    The model as large as it is is searched first, so that cutting has something to beat; then
    students, which the original teaches, each in a search of its own. The fastest that keeps
    every limit is taken. How fast a student is does not depend on its weights: one that is not
    faster in float is refused before it is trained.
    """

    job: Job
    target: Target
    progress: Progress
    journal: Journal
    deadline: Deadline
    students: Students = field(init=False)
    trials: list[Trial] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.students = Students(self.journal)

    def run(self) -> Found:
        """Search with and without cutting.

        Raises:
            EdgebmError: as `Search.run`, or what a step of the recipe refuses.
            KeyboardInterrupt: the user ended it before there was anything to write.
        """
        best = self._search(self.job)
        if not self.job.recipe.shrinking or self.job.made_up or best.undone or best.interrupted:
            return best
        stages = Stages(self.deadline, Seconds(self.job, self.target, self.journal))
        stages.showable = lambda: True
        plain = best
        for amount in self._amounts():
            trial = stages.run(_STAGE, partial(self._try, amount), noted=False)
            if trial is None:
                break
            self.trials.append(trial)
            if trial.found is not None and is_better(trial.found, best, self.job.recipe.prefer):
                best = trial.found
        for trial in self.trials:
            if trial.found is not None and trial.found is not best:
                trial.refused = trial.refused or why_not_taken(trial, best)
        return self._told(best, plain, stages.undone)

    def _amounts(self) -> Iterator[float]:
        """All of what the steps name first, then bisection between what is kept and what not."""
        search = self.job.recipe.sparsity_search
        low, high = 0.0, 1.0
        for number in range(search.tries if search else 1):
            amount = high if number == 0 else (low + high) / 2
            yield amount
            if self.trials and self.trials[-1].keeps_limits:
                if amount == 1.0:
                    return
                low = amount
            else:
                high = amount

    def _try(self, amount: float) -> Trial:
        steps = [_scaled(step, amount) for step in self.job.recipe.shrinking]
        context = self._context()
        cutting = [step for step in steps if step.kind != _TEACHING]
        cut, _ = run_passes(self.job.model, cutting, context)
        trial = Trial(amount, cut.param_count(), context.notes)
        if trial.params == self.job.model.param_count():
            trial.refused = "nothing was cut: " + _reasons(context.skips)
            return trial
        student = self.job.student(cut)
        trial.float_ms = float_race(
            student, self.target, self.progress, self.journal, self.deadline
        )
        trial.refused = not_faster(trial.float_ms)
        if not trial.refused:
            taught = self._taught(cut, steps, context)
            trial.found = self._search(self.job.student(taught))
            trial.found.skips[:0] = context.skips
            trial.found.notes[:0] = context.notes
        return trial

    def _taught(self, cut: Model, steps: list[AnyStep], context: Context) -> Model:
        """The student that all of `steps` make; `cut` is what those make that do not teach."""
        parts = self._parts(steps)
        student = self.students.find(parts)
        if student is not None:
            return student
        context.checkpoint = self.students.checkpoint(parts)
        last_cut = max(place for place, step in enumerate(steps) if step.kind != _TEACHING)
        if any(step.kind == _TEACHING for step in steps[:last_cut]):  # cut and taught by turns
            context.notes.clear()
            context.skips.clear()
            student, _ = run_passes(self.job.model, steps, context)
        else:
            student, _ = run_passes(cut, steps[last_cut + 1 :], context)
        self.students.keep(parts, student)
        return student

    def _search(self, job: Job) -> Found:
        return Search(job, self.target, self.progress, self.journal, self.deadline).run()

    def _context(self) -> Context:
        return replace(
            Decisions(self.job, self.target, self._tick).context(),
            time_ms=small_model_timer(self.target, self.journal),
            skips=[],
            notes=[],
        )

    def _tick(self, step: str, done: int, total: int) -> None:
        self.progress(step, done, total)
        if done < total:
            self.deadline.check()

    def _parts(self, steps: list[AnyStep]) -> dict[str, Any]:
        """Everything that decides what becomes of a student, in JSON types."""
        return {
            **machine(),
            "model": hashlib.sha256(self.job.model.to_bytes()).hexdigest(),
            "steps": [_STEPS.dump_python(step, mode="json") for step in steps],
            "training": self.job.training.digest(),
            "calibration": self.job.calibration.digest(),
            "seed": self.job.options.seed,
            "target": asdict(self.target),
            "ignored": list(self.job.options.ignored),
        }

    def _told(self, best: Found, plain: Found, undone: list[str]) -> Found:
        """`best` with what the trials were, and what they were compared with."""
        best.pruning = {
            "unpruned_speedup": speedup(plain.choice),
            "params": self.job.model.param_count(),
            "trials": [trial_dict(trial, taken=trial.found is best) for trial in self.trials],
        }
        others = [plain, *(trial.found for trial in self.trials if trial.found is not None)]
        best.rivals = tuple(each.choice for each in others if each is not best)
        best.notes += [refusal(trial) for trial in self.trials if trial.found is not best]
        best.undone = tuple(dict.fromkeys([*best.undone, *undone]))
        best.interrupted = self.deadline.interrupted
        return best


def shrunk(
    job: Job, target: Target, progress: Progress, *, timed: bool = True
) -> tuple[Job, list[Skip]]:
    """The job with the student that the recipe's steps make, as they are; no model is chosen.

    What they left alone comes with it. With `timed` single layers are, where the target is this
    machine.

    The same job where the recipe makes nothing smaller.

    Raises:
        EdgebmError: what a step refuses.
    """
    if not job.recipe.shrinking:
        return job, []
    context = Decisions(job, target, progress).context()
    context.time_ms = small_model_timer(target, Journal()) if timed else None
    student, _ = run_passes(job.model, job.recipe.shrinking, context)
    job = job.student(student)
    job.notes = [*job.notes, *context.notes]
    return job, context.skips


def _reasons(skips: Sequence[Skip]) -> str:
    """Why layers stayed whole, each reason once."""
    return "; ".join(dict.fromkeys(skip.reason for skip in skips)) or "the amount is too small"


def _scaled(step: AnyStep, amount: float) -> AnyStep:
    """The step with this share of its sparsity; one that cuts nothing as it is."""
    sparsity = getattr(step, "sparsity", None)
    if sparsity is None:
        return step
    scaled: AnyStep = replace(step, sparsity=amount * sparsity)  # type: ignore[type-var]
    return scaled
