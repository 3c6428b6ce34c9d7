"""The verb `distill`: a student of any architecture learns to answer as its teacher does."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from pydantic import ValidationError

from edgebm.bundle_writer import check_destination
from edgebm.errors import UsageError
from edgebm.exec.collect import float_run
from edgebm.importers import import_model
from edgebm.ir.given_states import GivenPair
from edgebm.ir.model import Model
from edgebm.ir.same_face import take_face
from edgebm.passes.distill import Distill, Losses, needs_torch
from edgebm.recipe import Recipe
from edgebm.runtime.files import write_atomically
from edgebm.search.job import Job, Options, Progress, quiet
from edgebm.search.judge import Judge
from edgebm.search.prepare import prepare
from edgebm.search.stateful import settle_states, wanted_states

if TYPE_CHECKING:
    from edgebm.grad.distill import Taught
    from edgebm.grad.world import World

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Distilled:
    """The student that was taught, where it was written, and what came of it.

    `report` has `path`, `steps`, `planned_steps`, `ended`, `seconds`, `resumed_at`, `loss` and
    `score` (each `before`, `after`; the score `teacher` too), `params`, `notes` and `left_out`;
    JSON types only. Under torchrun only process 0 writes; `path` is None in others.
    """

    model: Model
    path: Path | None
    report: Mapping[str, Any]


def distill(  # noqa: PLR0913 - one keyword per option of the command line
    teacher: object,
    student: object,
    data: object,
    *,
    eval: object = None,  # noqa: A002 - the name of the option
    metric: object = None,
    labels: object = None,
    minutes: float | None = None,
    steps: int | None = None,
    epochs: float | None = None,
    losses: Mapping[str, float] | None = None,
    state: Sequence[GivenPair] | None = None,
    streaming: bool = False,
    seed: int = 0,
    device: str = "auto",
    out: str | os.PathLike[str] | None = None,
    resume: bool = False,
    force: bool = False,
    progress: Progress | None = None,
    **settings: Any,
) -> Distilled:
    """Train `student` until it answers as `teacher` does, on samples without labels.

    The student's weights are where training begins, and its inputs and outputs must be those of
    the teacher. With labels, in `data` or in `eval`, the score of both is measured too; without,
    how near their answers are (SQNR in dB). While it trains its state is kept in
    `<out>.checkpoint`; an interrupted run goes on from there with `resume`.

    Under torchrun all processes call this with the same arguments and train together.

    Args:
        teacher: as the model for `compress`.
        student: likewise; of any architecture.
        data: samples, as for `compress`; all but those held out are learned from.
        eval: samples with labels to score on, or a program `f(run) -> float`.
        metric: built-in name, `module:function` or callable `f(outputs, labels)`.
        labels: labels of `data`, when they are not in it.
        minutes: how long; the number of steps is planned once, so the result depends on the
            machine. The shortest of these three ends it; 10 minutes without any.
        steps: how many steps at most.
        epochs: how often each sample comes at most.
        losses: weights of `outputs`, `features`, `attention`, `relations` and `labels`.
        state: pairs of states, as for `compress`.
        streaming: as for `compress`, of both models.
        seed: of every random choice.
        device: "auto" (a GPU if there is one), "cpu" or "cuda".
        out: ONNX file to write; None writes nothing.
        resume: go on from `<out>.checkpoint` if there is one.
        force: replace an existing `out`, and begin anew where there is a checkpoint.
        progress: called as `progress(step, done, total)`.
        settings: further fields of the step `distill`, by their names in recipes: `batch`, `rate`,
            `temperature`, `outputs`, `features`, `augment`, `precision`, ...

    Raises:
        EdgebmError: see `edgebm.errors`; no file is written then.
        KeyboardInterrupt: the user ended it; a checkpoint was written, if `out` is given.
    """
    given = {"minutes": minutes, "steps": steps, "epochs": epochs, **settings}
    step = _step({**given, **({} if losses is None else {"losses": losses})})
    needs_torch()
    place = None if out is None else Path(out)
    checkpoint = _checked(
        place, (teacher, student, data, eval, labels), resume=resume, force=force
    )
    from edgebm.grad.distill import Conditions
    from edgebm.grad.distill import distill as taught_by
    from edgebm.grad.identity import Kept
    from edgebm.grad.world import joined

    with joined(device) as world:
        tick = progress if progress is not None and world.leads else quiet
        job, model, notes = _opened(
            teacher,
            student,
            Options(seed=seed, wanted=wanted_states(state, streaming=streaming)),
            {"data": data, "labels": labels, "metric": metric, "evaluation": eval},
            step,
            tick,
        )
        judge = job.judged_by(job.as_run(float_run(job.model)))
        score = _scores(job, judge, world, tick)
        before = score(model, "score the student before")
        found = taught_by(
            model,
            job.model,
            job.training,
            step.teaching(model, seed),
            conditions=Conditions(
                world, step.precision, None if checkpoint is None else Kept(checkpoint, resume)
            ),
            progress=lambda done, total: tick("distill", done, total),
        )
        report = _report(found, job, model)
        report["notes"] = [*job.warnings, *notes, *report["notes"]]
        report["score"] = {
            "metric": judge.name,
            "unit": judge.unit,
            "higher_is_better": judge.higher_is_better,
            "teacher": score(job.model, "score the teacher"),
            "before": before,
            "after": score(model, "score the student"),
        }
        if place is None or not world.leads:
            return Distilled(model, None, {"path": None, **report})
        write_atomically(place, model.to_bytes())
        assert checkpoint is not None
        checkpoint.unlink(missing_ok=True)
        return Distilled(model, place, {"path": str(place), **report})


def _step(fields: Mapping[str, Any]) -> Distill:
    """The step of recipes with these fields.

    Raises:
        UsageError: every field that is wrong or unknown.
    """
    given: dict[str, Any] = {k: tuple(v) if isinstance(v, list) else v for k, v in fields.items()}
    faults: list[str] = []
    losses = _valid(Losses, given.pop("losses", {}), "losses.", faults)
    step = _valid(Distill, given if losses is None else {**given, "losses": losses}, "", faults)
    if step is None or faults:
        hint = "the names are those of the step distill in recipes"
        raise UsageError("; ".join(faults), hint=hint)
    return step


def _valid(kind: type[T], fields: Mapping[str, Any], where: str, faults: list[str]) -> T | None:
    try:
        return kind(**fields)
    except ValidationError as cause:
        faults += [f"{where}{'.'.join(map(str, f['loc']))}: {f['msg']}" for f in cause.errors()]
        return None


def _checked(
    out: Path | None, inputs: Sequence[object], *, resume: bool, force: bool
) -> Path | None:
    """The checkpoint of `out`, if both can be written."""
    if out is None:
        if resume:
            raise UsageError(
                "resume goes on from a checkpoint, which lies beside `out`",
                hint="give the same `out` as before",
            )
        return None
    check_destination(out, force=force, inputs=inputs)
    path = out.with_name(f"{out.name}.checkpoint")
    if path.exists() and not (resume or force):
        raise UsageError(
            f"{path} is of a training of {out.name} that is not complete",
            hint="go on from there with --resume, or begin anew with --force",
        )
    return path


def _opened(
    teacher: object,
    student: object,
    options: Options,
    given: Mapping[str, Any],
    step: Distill,
    tick: Progress,
) -> tuple[Job, Model, list[str]]:
    """The teacher with samples and judge, the student with the same face, and notes."""
    tick("import", 0, 2)
    imported = import_model(teacher)
    tick("import", 1, 2)
    mine = settle_states(import_model(student), options.wanted).model
    tick("import", 2, 2)
    job = prepare(imported, Recipe(version=1, name="distill", steps=(step,)), options, **given)
    notes = take_face(mine, job.model)
    return job, mine, [*job.notes, *notes]


def _scores(
    job: Job, judge: Judge, world: World, tick: Progress
) -> Callable[[Model, str], float | None]:
    """What scores a model; None in other processes, and for what the teacher is to itself."""

    def score(model: Model, what: str) -> float | None:
        if not world.leads or (judge.is_relative and model is job.model):
            return None
        run = job.as_run(float_run(model))
        return judge.score(run, lambda done, total: tick(what, done, total)).value

    return score


def _report(found: Taught, job: Job, student: Model) -> dict[str, Any]:
    fitted = asdict(found.fitted)
    return {
        "steps": fitted["steps"],
        "planned_steps": fitted["planned"],
        "ended": fitted["ended"],
        "seconds": round(fitted["seconds"], 2),
        "resumed_at": fitted["resumed_at"],
        "loss": {"before": fitted["before"], "after": fitted["best"]},
        "params": {"teacher": job.model.param_count(), "student": student.param_count()},
        "notes": list(found.notes),
        "left_out": [{"value": label, "reason": reason} for label, reason in found.left_out],
    }
