"""From a model and its samples to a job: every argument checked before the work begins."""

from __future__ import annotations

from edgebm.data.fit import raise_faults
from edgebm.data.label_checks import LABEL_HINT
from edgebm.data.samples import Samples, open_samples
from edgebm.exec.collect import float_run
from edgebm.ir.axis_limits import axis_limits
from edgebm.ir.model import Model
from edgebm.recipe import Recipe
from edgebm.search.argument_checks import check_ignored, check_shapes
from edgebm.search.front import put_in_front
from edgebm.search.gate import gate_faults
from edgebm.search.input_scale import scale_warnings
from edgebm.search.job import Job, Options
from edgebm.search.judge import Judge, Run
from edgebm.search.judging import Asked, is_program, judge_factory
from edgebm.search.made_up import made_up_samples
from edgebm.search.sample_checks import (
    calibration_faults,
    calibration_warnings,
    index_faults,
    overlap_warning,
)
from edgebm.search.shapes import size_faults
from edgebm.search.stateful import Settled, settle_states, with_axes
from edgebm.search.step_samples import (
    affordable,
    calibration_steps,
    call_samples,
    made_up_sequences,
)
from edgebm.search.streaming_proof import whole_samples

_HELD_OUT = 0.2
_PROVED = 3  # sequences on which a streaming model is compared with its sequence model
_SMALL_SET = 10  # below, holding samples out of calibration would cost more than it proves


def prepare(  # noqa: PLR0913 - the public arguments of compress, by their names
    model: Model,
    recipe: Recipe,
    options: Options,
    *,
    data: object = None,
    labels: object = None,
    metric: object = None,
    evaluation: object = None,
) -> Job:
    """Open the samples, settle how candidates are judged, and check every argument.

    Args:
        model: canonical.
        recipe: what to do.
        options: plain values.
        data: calibration samples in any form that `open_samples` takes; None leaves out the
            steps that need some.
        labels: labels for `data`, in place of its own.
        metric: name, `module:function` or callable; None for the labels' default metric.
        evaluation: samples with labels to evaluate on (a path or live samples), or the
            user's program `f(run)` as a callable or `module:function`.

    Raises:
        UsageError, DataError: an argument, or what the recipe puts in front of an input, does
            not fit the model.
    """
    front = put_in_front(model, recipe)
    settled = settle_states(front.model, options.wanted)
    model, face = settled.model, settled.face
    check_ignored(model, options.ignored)
    check_shapes(settled, options.shapes)
    warnings = [*front.warnings]
    calibration = _open(data, settled, recipe, labels)
    program = is_program(evaluation)
    separate = None if program or evaluation is None else _open(evaluation, settled, recipe, None)
    if calibration is None:
        calibration = _made_up(settled, options, separate)
    judged = separate or calibration
    if separate is None and data is not None and not program and len(calibration) >= _SMALL_SET:
        calibration, judged = calibration.split(_HELD_OUT)
    job = Job(model, face, recipe, options, calibration, judged, _no_judge, warnings, data is None)
    job.states, job.notes = settled.states, [*front.notes, *settled.notes]
    if job.made_up:
        _warn(job, _without_samples(job, judged=separate is not None, program=program))
    faults: list[str] = []
    asked = Asked(face, job.states, judged, options.max_drop, recipe.accuracy)
    judge = evaluation if program else None
    job.judged_by = judge_factory(asked, metric, judge, warnings, faults)
    known = None if program else judged.labels
    faults += gate_faults(options.gates, asked.view(known).face, known)
    job.training = calibration
    size = options.subset_size or recipe.subset_size
    if len(calibration) > size:
        job.calibration = calibration.subset(size, options.seed)
    warnings += dict.fromkeys([*calibration.warnings, *judged.warnings])
    _check_samples(job, faults, program=program)
    if job.states.pairs:
        _as_steps(job, settled)
    _doubt_samples(job, separate)
    return job


def _made_up(settled: Settled, options: Options, separate: Samples | None) -> Samples:
    model, face = settled.model, settled.face
    if settled.states.pairs:
        states = settled.states
        return made_up_sequences(model, face, states, options.shapes, separate, options.seed)
    like = None if separate is None else next(iter(separate.feeds(0, 1)))
    shapes = None if like is None else {name: array.shape for name, array in like.items()}
    return made_up_samples(model, face, options.shapes, shapes, options.seed)


def _as_steps(job: Job, settled: Settled) -> None:
    """Replace sequences that calibrate by single steps, with the states of the float model."""
    run = float_run(job.model)
    settled.prove(whole_samples(job.evaluation, settled.whole, _PROVED))
    job.states = states = with_axes(settled, run, job.evaluation, job.options.shapes)
    sequences = affordable(job.calibration, job.options.seed)
    job.calibration = job.training = calibration_steps(sequences, states, job.model)
    job.calls = call_samples(job.evaluation, states, job.model)
    if sequences.sequences and not job.made_up:
        job.notes.append(
            f"{len(job.calibration)} steps of {len(sequences)} sequences calibrate, with the "
            "states of the float model"
        )


def _without_samples(job: Job, *, judged: bool, program: bool) -> str:
    """What the report has to say where there is nothing to calibrate with."""
    lost = [skip.step for skip in job.left_out]
    parts = [f"left out: {', '.join(lost)}"] if lost else []
    if not judged:
        agreement = "speed is" if program else "speed and agreement with the float model are"
        parts.append(f"{agreement} measured on made-up inputs")
    return f"no samples were given with -d; {'; '.join(parts)}" if parts else ""


def _no_judge(run: Run) -> Judge:
    raise AssertionError("a job is complete only when prepare() returns it")


def _open(source: object, settled: Settled, recipe: Recipe, labels: object) -> Samples | None:
    if source is None:
        return None
    if isinstance(source, Samples):
        return source
    return open_samples(
        source,
        settled.face.inputs,
        labels=labels,
        preprocess=recipe.preprocess,
        audio=recipe.audio,
        texts=recipe.text.beside(settled.model.source),
        steps=settled.steps,
    )


def _warn(job: Job, sentence: str) -> None:
    if sentence:
        job.warnings.append(sentence)


def _check_samples(job: Job, faults: list[str], *, program: bool) -> None:
    """Refuse what no work can mend, all faults at once.

    `faults` are those that were found before.
    """
    sets = (job.calibration, job.evaluation)
    faults = [*faults, *index_faults(job.model, *sets)]
    limits = axis_limits(job.model)
    for samples in sets if limits else ():
        shapes = {name: array.shape for name, array in next(iter(samples.feeds(0, 1))).items()}
        faults += size_faults(job.face, limits, shapes)
    if _calibrates(job):
        faults += calibration_faults(job.calibration)
    raise_faults("samples", faults, LABEL_HINT)
    if _calibrates(job) and not program:
        _warn(job, overlap_warning(*sets))


def _doubt_samples(job: Job, separate: Samples | None) -> None:
    """Warn of what makes the result doubtful. `separate` are samples given to evaluate on."""
    if _calibrates(job):
        job.warnings += calibration_warnings(job.calibration)
    if not job.made_up or separate is not None:
        job.warnings += scale_warnings(job.model, job.calls if job.made_up else job.calibration)


def _calibrates(job: Job) -> bool:
    return job.recipe.needs_samples and not job.made_up
