"""What a compression would do: layers, candidates and time, before any of it is done."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

from edgebm.backends.placement import NOT_QUANTIZED
from edgebm.backends.runtimes import Builders, grids_of, is_gpu
from edgebm.errors import BackendFailed
from edgebm.ir.annotate import annotated, has_ranges, set_quant
from edgebm.ir.model import Model
from edgebm.passes.base import Context, Skip
from edgebm.passes.driver import run_passes
from edgebm.passes.quantize_activations import QuantizeActivations
from edgebm.passes.quantize_recurrent import QuantizeRecurrent
from edgebm.quant.params import Range
from edgebm.runtime.engines import RUNTIMES
from edgebm.search.assemble import Graphs, all_candidates, why_no_integers
from edgebm.search.build import (
    build_integer,
    build_promises,
    build_turned,
    build_weight_only,
    values_to_observe,
)
from edgebm.search.candidates import Artifact
from edgebm.search.estimate import Work, runs_on_samples, stages, write_stage
from edgebm.search.half import wants_half
from edgebm.search.job import Job, Progress
from edgebm.search.probe import Probe, probe
from edgebm.search.stateful import states_dict
from edgebm.search.summary import versions
from edgebm.search.turning import lay_out_cells, untrained
from edgebm.target import Target

# Where files would be made there is nothing: the graphs tell what would be in them.
_NO_FILES: Builders = {runtime: lambda model: {} for runtime in RUNTIMES}
_ANY = Range(-1.0, 1.0)


@dataclass(frozen=True, slots=True)
class Planned:
    """The plan for one target. `failures` are the words of a runtime that refuses."""

    work: Work
    artifacts: list[Artifact]
    skips: list[Skip]
    failures: list[str]


def plan_dict(
    job: Job, targets: Sequence[Target], import_s: float, progress: Progress
) -> dict[str, Any]:
    """The plan for every target, and an estimate of the time; nothing is calibrated or built.

    Steps of the recipe that need no samples are run on a copy of the graph, then every value
    that calibration would give a range gets any range, and each placement of the integers is
    looked up. A few calls in float tell how fast this machine is.

    Returns:
        See `edgebm.plan`.

    Raises:
        DataError: the model does not run on a sample.
    """
    planned = [plan_target(job, each) for each in targets]
    speed = probe(job, targets, progress)
    parts = [_target_dict(each, speed) for each in planned]
    estimate = [
        _stage("import", import_s, "as long as it took now, samples opened too"),
        *(stage for part in parts for stage in part["estimate"]),
        _stage(*write_stage(speed, len(targets))),
    ]
    return {
        "created_with": versions(),
        "model": {
            "source": job.model.source,
            "params": job.model.param_count(),
            "nodes": sum(1 for _ in job.model.nodes()),
        },
        "data": {
            "source": "made-up inputs" if job.made_up else job.calibration.source,
            "calibration_samples": len(job.calibration) if _calibrates(job) else 0,
            "evaluation_samples": len(job.evaluation),
            "labels": job.evaluation.has_labels,
        },
        "states": states_dict(job.states),
        "recipe": job.recipe.to_dict(),
        "judged_by": speed.judged_by,
        "targets": parts,
        "estimate": {
            "seconds": sum(stage["seconds"] for stage in estimate),
            "stages": estimate,
            "call_ms": speed.call_s * 1e3,
        },
        "warnings": list(dict.fromkeys(job.warnings)),
        "notes": list(job.notes),
    }


def plan_target(job: Job, target: Target) -> Planned:
    """Every artifact that would be built for `target`, without its files."""
    skips = list(job.left_out)
    context = Context(
        observe=lambda model: values_to_observe(model, target.runtimes, job.is_ignored),
        is_ignored=job.is_ignored,
        seed=job.options.seed,
        skips=skips,
    )
    steps = [step for step in job.steps if not runs_on_samples(step, job)]
    decided, spent = run_passes(job.model, steps, context)
    seconds: dict[str, float] = {}
    for step, taken in zip(steps, spent, strict=True):
        seconds[step.kind] = seconds.get(step.kind, 0.0) + taken
    kinds = {type(step) for step in job.steps}
    if QuantizeActivations in kinds:
        decided = _with_any_ranges(decided, context)
    if QuantizeRecurrent in kinds:
        lay_out_cells(decided, job.is_ignored)
    turned = untrained(job, decided)
    start = time.perf_counter()
    artifacts, failures = _artifacts(job, target, Graphs(decided, turned=turned), context)
    placing_s = time.perf_counter() - start
    candidates = all_candidates(job, target, artifacts)
    work = Work(job, target, candidates, seconds, placing_s, decided)
    return Planned(work, artifacts, skips, failures)


def _with_any_ranges(model: Model, context: Context) -> Model:
    """A copy in which every value that would be observed has a range."""
    out, wanted = model.clone(), context.observe(model)
    values = [*out.graph.graph.inputs, *(v for node in out.nodes() for v in node.outputs)]
    for value in values:
        if value.name in wanted:
            set_quant(value, _ANY)
    return out


def _artifacts(
    job: Job, target: Target, graphs: Graphs, context: Context
) -> tuple[list[Artifact], list[str]]:
    """As `Search` would build them, integers first, and the words of a runtime that refuses."""
    decided, turned = graphs.decided, graphs.turned
    floats = [
        Artifact(runtime, "float", {}, job.model, precision=precision)
        for runtime in target.runtimes
        for precision in (("f16", "") if is_gpu(runtime) and wants_half(job, target) else ("",))
    ]
    if "int8" not in target.precisions or not annotated(decided):
        return floats, []
    grids = grids_of(target.runtimes, frozenset(target.features))
    build = build_integer if has_ranges(decided) else build_weight_only
    ranged = _with_any_ranges(decided, context) if _promises(job, target) else None
    found: list[Artifact | BackendFailed] = []
    for runtime in target.runtimes:
        noted = replace(graphs, has_extents=wants_half(job, target))
        if why := why_no_integers(job, runtime, noted):
            found.append(BackendFailed(why))
            continue
        found += build(decided, runtime, grids, job.is_ignored, _NO_FILES)
        if turned is not None:
            found += build_turned(turned, runtime, grids, job.is_ignored, _NO_FILES)
        if ranged is not None:
            found += build_promises(ranged, runtime, grids, job.is_ignored, _NO_FILES)
    # Some products are counted in what would be ONNX Runtime's file; it is not kept.
    integers = [replace(each, files={}) for each in found if isinstance(each, Artifact)]
    failures = [str(each) for each in found if isinstance(each, BackendFailed)]
    return [*integers, *floats], failures


def _promises(job: Job, target: Target) -> bool:
    """Whether ranges of made-up inputs would be timed, see `promise.py`."""
    calibrating = any(isinstance(step, QuantizeActivations) for step in job.recipe.steps)
    return job.made_up and calibrating and target.is_host


def _calibrates(job: Job) -> bool:
    return not job.made_up and job.recipe.needs_samples


def _target_dict(planned: Planned, speed: Probe) -> dict[str, Any]:
    work, target = planned.work, planned.work.target
    return {
        "target": target.name,
        "timed": target.is_host,
        "placements": [
            _placement(artifact, planned.skips)
            for artifact in planned.artifacts
            if artifact.kind != "float"
        ],
        "candidates": [
            {
                "id": candidate.id,
                "runtime": candidate.artifact.runtime,
                "precision": candidate.precision,
                "threads": candidate.shown_threads,
                "only_timed": candidate.artifact.promise,
            }
            for candidate in work.candidates
        ],
        "skips": [asdict(skip) for skip in planned.skips],
        "failures": planned.failures,
        "estimate": [
            _stage(name if target.is_host else f"{name} for {target.name}", seconds, how)
            for name, seconds, how in stages(work, speed)
        ],
    }


def _placement(artifact: Artifact, skips: Sequence[Skip]) -> dict[str, Any]:
    """The nodes that would be integers on one runtime, and why each other one would not.

    Where a step said why it left a weight alone, that says more than that it did.
    """
    known = {skip.node: skip.reason for skip in skips}
    reasons = {
        name: known.get(name, reason) if reason == NOT_QUANTIZED else reason
        for name, reason in artifact.reasons.items()
    }
    ops = {node.name or "?": node.op_type for node in artifact.lowered.nodes()}
    return {
        "runtime": artifact.runtime,
        "kind": artifact.kind,
        "weights_only": bool(artifact.weight_bits),
        "quantized": [
            {"name": name, "op": ops.get(name, "?"), "bits": artifact.weight_bits.get(name, 8)}
            for name in artifact.integer_nodes
        ],
        "refused": [
            {"name": name, "op": ops.get(name, "?"), "reason": reason}
            for name, reason in reasons.items()
        ],
    }


def _stage(name: str, seconds: float, how: str) -> dict[str, Any]:
    return {"name": name, "seconds": seconds, "how": how}
