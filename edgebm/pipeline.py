"""The public verbs of the host half. The pipeline reads top to bottom."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from edgebm.backends.qdq import lower
from edgebm.backends.weight_only import store_weights
from edgebm.bundle_writer import check_destination
from edgebm.errors import DataError, UsageError
from edgebm.importers import import_model
from edgebm.ir.annotate import has_ranges
from edgebm.ir.given_states import GivenPair
from edgebm.ir.model import Model
from edgebm.package import write_anyway
from edgebm.passes.quantize_activations import QuantizeActivations
from edgebm.recipe import Recipe, load_recipe
from edgebm.report.findings import findings
from edgebm.search.choose import Limits
from edgebm.search.deadline import Deadline
from edgebm.search.decide import Decisions
from edgebm.search.evaluate import open_scorable, score_samples
from edgebm.search.examine import examine
from edgebm.search.found import close_journal
from edgebm.search.initial_state import InitialState
from edgebm.search.job import Options, Progress, prepare
from edgebm.search.journal import open_journal
from edgebm.search.prepared import Given, prepared
from edgebm.search.shapes import ShapeLists
from edgebm.search.stateful import wanted_states
from edgebm.search.target import Search, check_buildable
from edgebm.target import load_target

__all__ = ["Result", "analyze", "compress", "evaluate", "quantize"]


@dataclass(frozen=True, slots=True)
class Result:
    """What `compress` did.

    `path` is the bundle, None when none was to be written. `report` is what `report.json` in
    the bundle holds. `interrupted` says that the user ended the run, and that this is the best
    that was known by then. `notes` are sentences about this run and not about the bundle: what
    was reused of earlier measurements. `exit_code` is 130 after an interruption, 3 when a
    constraint was missed, else 0.
    """

    path: Path | None
    report: Mapping[str, Any]
    constraints_met: bool
    interrupted: bool = False
    notes: tuple[str, ...] = ()

    @property
    def exit_code(self) -> int:
        if self.interrupted:
            return 130
        return 0 if self.constraints_met else 3


def compress(  # noqa: PLR0913 - one keyword per option of the command line
    model: object,
    *,
    target: str | Path | Sequence[str | Path] = "host",
    recipe: str | Path | Recipe = "int8",
    data: object = None,
    eval: object = None,  # noqa: A002 - the name of the option
    metric: object = None,
    max_drop: float | None = None,
    max_latency_ms: float | None = None,
    max_size_mb: float | None = None,
    out: str | os.PathLike[str] | None = None,
    subset_size: int | None = None,
    ignored: Sequence[str] = (),
    state: Sequence[GivenPair] | None = None,
    streaming: bool = False,
    initial_state: InitialState | None = None,
    shapes: ShapeLists | None = None,
    threads: int | Sequence[int] | None = None,
    seed: int = 0,
    force: bool = False,
    keep: str | os.PathLike[str] | None = None,
    measure_s: float = 60.0,
    budget_s: float | None = None,
    measurements: str | os.PathLike[str] | None = None,
    labels: object = None,
    progress: Progress | None = None,
) -> Result:
    """Compress a trained model for a target and write a bundle.

    Every candidate is built, timed in turns with the float model, and scored on the built
    artifact; the fastest that keeps the accuracy is taken. "Float" is an answer too.

    What is measured is kept in `<out>.resume` until the bundle is written. A run that was cut off
    leaves that file, and the same call goes on from there. An interruption (KeyboardInterrupt)
    ends the run with the best so far once a candidate was measured and judged.

    Args:
        model: an ONNX file, a `.pt2` program, `module:function`, a torch module with its
            example inputs as `(module, inputs)`, or a live ONNX model.
        target: name or YAML file; a list makes one variant each.
        recipe: name or YAML file.
        data: calibration samples: `.npz`, `.npy`, a folder, `module:function`, or live arrays.
        eval: samples with labels to evaluate on, or a program `f(run) -> float` (callable or
            `module:function`), `run` being a function from feeds to outputs.
        metric: built-in name, `module:function` or callable `f(outputs, labels)`.
        max_drop: how much worse the metric may get, in its printed unit.
        max_latency_ms: limit on the p99 latency of one call, milliseconds.
        max_size_mb: limit on the artifact, in 10^6 bytes.
        out: the bundle; None writes no file.
        subset_size: samples to calibrate with; None takes the recipe's (300).
        ignored: node names, patterns or op types that stay float.
        state: pairs `"input:output"` (or tuples) of a state before and after a call, in place of
            those that are found; an empty sequence says that there is none.
        streaming: make a model of single steps, with its states as inputs and outputs, of one
            that takes whole sequences.
        initial_state: what states hold before the first step, where that is not zero: arrays by
            input name, or an `.npz` file.
        shapes: for an input name, shapes that get a compiled copy of their own.
        threads: thread counts to try, in place of the target's.
        seed: of every random choice.
        force: replace an existing `out`.
        keep: folder for the graphs of each stage, as ONNX files.
        measure_s: seconds for measuring latency.
        budget_s: seconds for the whole run; then the best so far is written, at least the float
            model as it is. None sets no limit.
        measurements: a file in place of `<out>.resume`: read if it exists, and kept.
        labels: labels of `data`, when they are not in it.
        progress: called as `progress(step, done, total)`.

    Raises:
        EdgebmError: see `edgebm.errors`; no bundle is written then.
        KeyboardInterrupt: the user ended the run before there was anything to write.
    """
    deadline = Deadline(budget_s)
    journal = open_journal(out, measurements, (model, data, eval))
    if out is not None:
        force = force or journal.wrote(Path(out))
        check_destination(Path(out), force=force, inputs=(model, data, eval, initial_state))
    counts = (threads,) if isinstance(threads, int) else tuple(threads or ())
    options = Options(
        subset_size=subset_size,
        ignored=tuple(ignored),
        shapes=shapes or {},
        threads=counts,
        seed=seed,
        measure_s=measure_s,
        budget_s=budget_s,
        max_drop=max_drop,
        limits=Limits(max_latency_ms, max_size_mb),
        wanted=wanted_states(state, streaming=streaming, initial_state=initial_state),
    )
    report_progress = progress or _quiet
    given = Given(data, labels, metric, eval)
    job, targets = prepared(model, target, recipe, options, given, report_progress)
    found = [Search(job, each, report_progress, journal, deadline).run() for each in targets]
    place = Path(out) if out is not None else None
    path, report = write_anyway(job, found, place, force=force, keep=keep)
    notes = close_journal(journal, found, path, kept=measurements is not None)
    return Result(path, report, not report["missed"], report["interrupted"], notes)


def quantize(  # noqa: PLR0913 - one keyword per option of the command line
    model: object,
    data: object,
    *,
    target: str | Path = "host",
    runtime: str = "onnxruntime",
    recipe: str | Path | Recipe = "int8",
    ignored: Sequence[str] = (),
    state: Sequence[GivenPair] | None = None,
    streaming: bool = False,
) -> Model:
    """Only the quantization: an ONNX graph with Q/DQ nodes placed for one runtime.

    Nothing is measured, chosen or proved; `compress` does that. `Model.to_bytes()` of the
    result is the ONNX file.

    Args:
        model: as for `compress`.
        data: calibration samples, as for `compress`.
        target: without VNNI its CPU takes 7 bits of weights or of activations; which of them is
            settled as in `compress`.
        runtime: "onnxruntime" or "openvino"; their kernels want the nodes in other places.
        recipe: name, YAML file or live recipe.
        ignored: node names, patterns or op types that stay float.
        state: as for `compress`.
        streaming: as for `compress`.

    Raises:
        EdgebmError: see `edgebm.errors`.
    """
    board = load_target(target)
    plan = recipe if isinstance(recipe, Recipe) else load_recipe(recipe)
    options = Options(ignored=tuple(ignored), wanted=wanted_states(state, streaming=streaming))
    job = prepare(import_model(model), plan, options, data=data)
    if any(isinstance(step, QuantizeActivations) for step in plan.steps) and job.made_up:
        raise DataError(
            f"the recipe {plan.name} needs samples to calibrate with",
            hint="give some, or use -r w8, which quantizes weights alone",
        )
    if runtime not in board.runtimes:
        raise UsageError(f"{board.name} has {', '.join(board.runtimes)}, not '{runtime}'")
    decisions = Decisions(job, replace(board, runtimes=(runtime,)), _quiet)
    decided = decisions.passes()
    if not has_ranges(decided):
        return store_weights(decided, job.is_ignored).model
    return lower(decided, decisions.dialect(decided), job.is_ignored)[0]


def analyze(  # noqa: PLR0913 - one keyword per option of the command line
    model: object,
    data: object,
    *,
    target: str | Path = "host",
    recipe: str | Path | Recipe = "int8",
    ignored: Sequence[str] = (),
    subset_size: int | None = None,
    state: Sequence[GivenPair] | None = None,
    streaming: bool = False,
    progress: Progress | None = None,
) -> dict[str, Any]:
    """Say which layer is to blame for what quantization costs. Nothing is built or timed.

    Every quantized layer is put on integers alone, and left in float alone, and the error is
    measured at the model's worst output, in simulation with the exact rounding.

    Args:
        model: as for `compress`.
        data: calibration samples, as for `compress`; labels are not looked at.
        target: whose CPU decides how many bits there are.
        recipe: name, YAML file or live recipe.
        ignored: node names, patterns or op types that stay float.
        subset_size: samples to calibrate with; None takes the recipe's (300).
        state: as for `compress`.
        streaming: as for `compress`.
        progress: called as `progress(step, done, total)`.

    Returns:
        `findings`, a few sentences; `analysis`, the figures of each layer, the most harmful
        first; `layers`, what stays in float and why; and `model`, `data`, `recipe`, `target`,
        `notes`, `skips`, `warnings` as in a report. JSON types only.

    Raises:
        EdgebmError: see `edgebm.errors`.
    """
    if data is None:
        raise DataError(
            "what integers do to a layer is measured on samples, and there are none",
            hint="give some with -d samples.npz; a few dozen show the worst layers",
        )
    if subset_size is not None and subset_size < 1:
        raise UsageError(f"subset_size must be above 0, not {subset_size}")
    board = load_target(target)
    check_buildable(board)
    plan = recipe if isinstance(recipe, Recipe) else load_recipe(recipe)
    tick = progress or _quiet
    tick("import", 0, 1)
    imported = import_model(model)
    tick("import", 1, 1)
    wanted = wanted_states(state, streaming=streaming)
    options = Options(subset_size=subset_size, ignored=tuple(ignored), wanted=wanted)
    found = examine(prepare(imported, plan, options, data=data), board, tick)
    return {"findings": findings(found["analysis"]), **found}


def evaluate(  # noqa: PLR0913 - one keyword per option of the command line
    model: str | os.PathLike[str],
    *,
    data: object = None,
    eval: object = None,  # noqa: A002 - the name of the option
    metric: object = None,
    labels: object = None,
    state: Sequence[GivenPair] | None = None,
    progress: Progress | None = None,
) -> dict[str, Any]:
    """Score a bundle, or a model file as it is, without compressing anything.

    Args:
        model: a bundle, or a model as for `compress`, which runs in f32 on ONNX Runtime.
        data: samples, with labels unless `eval` is a program.
        eval: a program `f(run) -> float`, callable or `module:function`.
        metric: name, `module:function` or callable; None for the labels' default.
        labels: labels of `data`, when they are not in it.
        state: pairs of a model file, as for `compress`; a bundle knows its own.
        progress: called as `progress(step, done, total)`.

    Returns:
        `metric`, `unit`, `higher_is_better`, `value`, `samples`, and what ran; `classes`, the
        figure of each class (None where the metric has none), and `warnings`, sentences.

    Raises:
        EdgebmError: see `edgebm.errors`.
    """
    tick = progress or _quiet
    with open_scorable(model, wanted_states(state)) as scorable:
        return score_samples(scorable, data, labels, metric, eval, tick)


def _quiet(step: str, done: int, total: int) -> None:
    """Say nothing."""
