"""A student graph is taught by a teacher graph, on samples without labels."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace

from edgebm.errors import DataError, TrainingDiverged
from edgebm.grad.checkpoint import Checkpoint
from edgebm.grad.course import Course
from edgebm.grad.fit import Fitted, Place, Schedule, fit
from edgebm.grad.identity import Kept, identity
from edgebm.grad.module import GraphModule, write_back
from edgebm.grad.pair import Pair
from edgebm.grad.precision import Choice, chosen
from edgebm.grad.rows import Rows, Samples
from edgebm.grad.teaching import Teaching
from edgebm.grad.world import World
from edgebm.ir.edit import inputs, name
from edgebm.ir.learned import learned
from edgebm.ir.model import Model
from edgebm.ir.traits import is_table


@dataclass(frozen=True, slots=True)
class Conditions:
    """Where it is computed, in what precision, and where its state is kept meanwhile."""

    world: World = field(default_factory=World)
    precision: Choice = "auto"
    kept: Kept | None = None


@dataclass(frozen=True, slots=True)
class Taught:
    """What came of it: `changed` are the weights of the model that were replaced.

    `left_out` are values that were not compared, each with a reason.
    """

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
    weights that did best there, those at the start among them. Embedding tables are left alone
    unless `teaching` says otherwise, and zeros of sparse weights stay.

    Args:
        student: canonical; its inputs and outputs are those of the teacher.
        teacher: canonical; not changed.
        samples: what both read; `samples.labels` are looked at where labels are to be learned.
        teaching: losses, schedule and data.
        conditions: None is one process, on the CPU.
        progress: called after each step with the steps done and their number.

    Raises:
        UnsupportedModel: an op that has no gradient here; all of them.
        TrainingDiverged: the loss became infinite before anything was better.
        DataError: fewer than two samples, or no labels where they are to be learned.
        UsageError: a feature that is not there, augmentation that fits no input, a batch that
            does not fit the number of processes, a checkpoint of another training.
        WorkerLost: another process of the training is gone.
        KeyboardInterrupt: the user ended it; a checkpoint was written if there is to be one.
    """
    conditions = conditions or Conditions()
    pair = _pair(student, teacher, teaching, conditions.world)
    found = teach(pair, samples, teaching, conditions, progress)
    return replace(found, changed=tuple(write_back(pair.pupil, student)))


def teach(
    pair: Pair,
    samples: Samples,
    teaching: Teaching,
    conditions: Conditions,
    progress: Callable[[int, int], None],
    begin: Callable[[], None] = lambda: None,
) -> Taught:
    """Train `pair.pupil`, in place; see `distill`.

    `begin` is called once, when all is planned and before the pupil is judged for the first time:
    what makes it answer less smoothly, such as rounding, is added there.
    """
    if len(samples) < 2:
        raise DataError(
            f"teaching a student needs at least 2 samples, not {len(samples)}",
            hint="give more with -d; a few hundred are a start, labels are not needed",
        )
    rows = Rows(samples)
    precision = chosen(
        conditions.precision,
        conditions.world.device,
        convolutions=any(True for _ in pair.student.nodes("Conv", "ConvTranspose")),
    )
    course = Course(pair, rows, getattr(samples, "labels", None), teaching, conditions.world)
    checkpoint = _checkpoint(pair, rows, teaching, conditions)
    schedule, task = course.schedule(), course.task(precision)
    begin()
    fitted = fit(
        pair.pupil,
        task,
        schedule,
        seed=teaching.seed,
        progress=progress,
        place=Place(conditions.world, precision, checkpoint),
    )
    if fitted.ended == "diverged" and not fitted.best < fitted.before:
        raise _diverged(fitted, schedule)
    auto = conditions.precision == "auto"
    notes = [f"trained in {precision.name}: {precision.why}"] if auto else []
    notes += [*course.notes, *_endings(fitted, schedule)]
    return Taught(fitted, (), tuple(notes), tuple(course.plan.left_out))


def _pair(student: Model, teacher: Model, teaching: Teaching, world: World) -> Pair:
    weights = learned(student) if teaching.train_tables else learned(student) - tables(student)
    pupil = GraphModule(student, trainable=weights.__contains__).to(world.device)
    master = GraphModule(teacher, trainable=lambda label: False).to(world.device)
    return Pair(student, teacher, pupil, master)


def tables(model: Model) -> set[str]:
    """Embeddings. Few rows of them are seen, and the rest would no longer fit to those."""
    return {name(inputs(node)[0]) for node in model.nodes("Gather") if is_table(node)}


def _checkpoint(
    pair: Pair, rows: Rows, teaching: Teaching, conditions: Conditions
) -> Checkpoint | None:
    kept = conditions.kept
    if kept is None:
        return None
    mine = identity(pair.student, pair.teacher, rows, teaching, conditions.precision)
    return kept.checkpoint(mine)


def _diverged(fitted: Fitted, schedule: Schedule) -> TrainingDiverged:
    return TrainingDiverged(
        f"the loss is no number after {fitted.steps} steps at a learning rate of up to "
        f"{schedule.rate:g}, and nothing before it was better than the start",
        hint=f"give a lower learning rate, such as {schedule.rate / 4:g}",
        details={"steps": fitted.steps, "rate": schedule.rate},
    )


def _endings(fitted: Fitted, schedule: Schedule) -> Iterator[str]:
    """Sentences on how it ended, where that is not as planned."""
    if fitted.factor < schedule.factors[0]:
        yield (
            f"the learning rate was up to {fitted.factor * schedule.rate:g}: at "
            f"{schedule.rate:g} the first steps made the student worse than it began"
        )
    if fitted.planned < schedule.steps:
        yield (
            f"{fitted.planned} steps were planned, by the time that this machine takes for one: "
            "on another machine the result may differ"
        )
    if fitted.resumed_at:
        yield f"it was interrupted, and went on after step {fitted.resumed_at}"
    if fitted.ended == "out of time":
        yield (
            f"the clock stopped it after {fitted.steps} of {fitted.planned} steps, so runs may "
            "differ"
        )
    if fitted.ended == "no better":
        yield f"it ended after {fitted.steps} of {fitted.planned} steps: nothing got better"
    if fitted.ended == "diverged":
        yield (
            f"the loss was no number after {fitted.steps} steps; the best weights before it were "
            f"kept; a learning rate below {schedule.rate:g} may do better"
        )
