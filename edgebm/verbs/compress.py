"""The verb `compress`: it reads top to bottom."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from edgebm.bundle_writer import check_destination
from edgebm.errors import UsageError
from edgebm.ir.given_states import GivenPair
from edgebm.package import write_anyway
from edgebm.recipe import Recipe
from edgebm.search.board import check_boards
from edgebm.search.choose import Limits
from edgebm.search.deadline import Deadline
from edgebm.search.found import close_journal
from edgebm.search.gate import parse_gates
from edgebm.search.gate_check import check_gates
from edgebm.search.initial_state import InitialState
from edgebm.search.job import Options, Progress, quiet
from edgebm.search.journal import open_journal
from edgebm.search.prepared import Given, prepared
from edgebm.search.shapes import ShapeLists
from edgebm.search.sparsity import SparsitySearch
from edgebm.search.stateful import wanted_states


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
    gates: Sequence[str] = (),
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
    all_candidates: bool = False,
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
        model: an ONNX file, a `.pt2` program, a Hugging Face folder, `module:function`, a torch
            module with its example inputs as `(module, inputs)`, a live model of transformers, or
            a live ONNX model.
        target: name or YAML file; a list makes one variant each.
        recipe: name or YAML file.
        data: calibration samples: `.npz`, `.npy`, `.txt`, `.jsonl`, a folder, `module:function`,
            or live arrays.
        eval: samples with labels to evaluate on, or a program `f(run) -> float` (callable or
            `module:function`), `run` being a function from feeds to outputs.
        metric: built-in name, `module:function` or callable `f(outputs, labels)`.
        max_drop: how much worse the metric may get, in its printed unit.
        max_latency_ms: limit on the p99 latency of one call, milliseconds.
        max_size_mb: limit on the artifact, in 10^6 bytes.
        gates: figures that the chosen candidate must reach on the evaluation samples, as
            `"sensitivity>=0.95"`: any metric's name, in its unit or, of 100 points, as a share.
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
        measurements: a file in place of `<out>.resume`: read if it exists, and kept. One that
            `edgebm bench --candidates` wrote on a board makes that board's figures decide.
        all_candidates: write every candidate into the bundle, so that a board can measure them.
        labels: labels of `data`, when they are not in it.
        progress: called as `progress(step, done, total)`.

    Raises:
        GateFailed: the chosen candidate does not reach a gate; no bundle is written.
        EdgebmError: see `edgebm.errors`; no bundle is written then.
        KeyboardInterrupt: the user ended the run before there was anything to write.
    """
    if all_candidates and out is None:
        raise UsageError("all_candidates has no bundle to go into", hint="give out=")
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
        gates=parse_gates(gates),
        wanted=wanted_states(state, streaming=streaming, initial_state=initial_state),
    )
    report_progress = progress or quiet
    given = Given(data, labels, metric, eval, journal)
    job, targets = prepared(model, target, recipe, options, given, report_progress)
    if measurements is not None:
        journal.notes += check_boards(journal, job, targets)
    found = [
        SparsitySearch(job, each, report_progress, journal, deadline).run() for each in targets
    ]
    check_gates(job, found, report_progress)
    place = Path(out) if out is not None else None
    path, report = write_anyway(
        job, found, place, force=force, keep=keep, everything=all_candidates
    )
    notes = close_journal(journal, found, path, kept=measurements is not None)
    return Result(path, report, not report["missed"], report["interrupted"], notes)
