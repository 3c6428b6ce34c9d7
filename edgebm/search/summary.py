"""Figures of the search in the form the report stores them."""

from __future__ import annotations

import hashlib
import platform
import statistics
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from importlib.metadata import version
from typing import Any

from edgebm.data.classes import class_changes
from edgebm.data.significance import mcnemar
from edgebm.ir.traits import MATMULS, RECURRENT
from edgebm.runtime.cpu import cpu_features, cpu_name, usable_threads
from edgebm.search.cells import cell_dicts
from edgebm.search.choose import Choice, Outcome
from edgebm.search.found import Found
from edgebm.search.job import Job
from edgebm.search.judge import Judge
from edgebm.search.missed import missed_sentences
from edgebm.search.stateful import states_dict

REPORT_VERSION = 1


def candidate_dict(
    outcome: Outcome, before: Outcome, judge: Judge, layers: Mapping[str, int]
) -> dict[str, Any]:
    """One candidate: what it is, how fast, how good, and why it was or was not taken."""
    candidate, measured, score = outcome.candidate, outcome.measured, outcome.score
    value = None if score is None else score.value
    origin = None if before.score is None else before.score.value
    sign = 1.0 if judge.higher_is_better else -1.0
    comparable = value is not None and origin is not None and not judge.is_relative
    return {
        "id": candidate.id,
        "runtime": candidate.artifact.runtime,
        "precision": candidate.precision,
        "threads": candidate.shown_threads,
        "p50_ms": measured.p50_ms,
        "p99_ms": measured.p99_ms,
        "turns": measured.turns_ms,
        "calls": len(measured.calls_ms),
        "metric": value,
        "drop": sign * (origin - value) if comparable else None,  # type: ignore[operator]
        "sqnr_db": {}
        if score is None
        else {name: each.sqnr_db for name, each in score.agreement.outputs.items()},
        "drift_db": None if score is None else score.agreement.drift_db,
        "size_bytes": candidate.artifact.size_bytes,
        "status": outcome.status,
        "why": outcome.why,
        "layers": dict(layers),
    }


def side_dict(outcome: Outcome, peak_memory_mib: float | None) -> dict[str, Any]:
    """The `before` or `after` of the summary."""
    candidate, measured = outcome.candidate, outcome.measured
    return {
        "candidate": candidate.id,
        "metric": None if outcome.score is None else outcome.score.value,
        "p50_ms": measured.p50_ms,
        "p99_ms": measured.p99_ms,
        "size_bytes": candidate.artifact.size_bytes,
        "peak_memory_mib": peak_memory_mib,
        "runtime": candidate.artifact.runtime,
        "precision": candidate.precision,
        "threads": candidate.shown_threads,
    }


def speedup(choice: Choice) -> float | None:
    """Median over turns of the baseline's latency over the chosen one's; None if not timed."""
    before, after = choice.baseline.measured.turns_ms, choice.chosen.measured.turns_ms
    if not before or not after:
        return None
    return statistics.median(before) / statistics.median(after)


def verdict(choice: Choice) -> str:
    """One sentence: what was gained, or why nothing was."""
    chosen, ratio = choice.chosen.candidate, speedup(choice)
    size = choice.baseline.candidate.artifact.size_bytes / max(1, chosen.artifact.size_bytes)
    if choice.baseline.score is None:
        return f"{chosen.id} was taken as it is: nothing was evaluated before the end."
    if choice.missed:
        return f"No candidate keeps every limit; the closest is {chosen.id}."
    if all(outcome.candidate.is_float_baseline for outcome in choice.outcomes):
        return f"{chosen.id} was taken; the recipe leaves the model as it is."
    if chosen.is_float_baseline:
        return f"Nothing beats the float model: {chosen.id} is the fastest that keeps the limits."
    what = f"{chosen.id} keeps the limits"
    if ratio is None:
        return f"{what} at {size:.2f} times less storage; latency was not measured."
    return f"{what} and is {ratio:.2f} times as fast as float, at {size:.2f} times less storage."


def report_dict(job: Job, found: Sequence[Found], name: str) -> dict[str, Any]:
    """The whole of `report.json`, for the first target; further targets are listed beside it."""
    first = found[0]
    judge = first.judge
    limits = job.options.limits
    report: dict[str, Any] = {
        "report_version": REPORT_VERSION,
        "name": name,
        "created_with": versions(),
        "host": {
            "cpu": cpu_name(),
            "features": sorted(cpu_features()),
            "threads": usable_threads(),
        },
        "target": first.target.name,
        "recipe": job.recipe.to_dict(),
        "model": model_dict(job),
        "states": states_dict(job.states),
        "data": data_dict(job),
        "metric": {
            "name": judge.name,
            "unit": judge.unit,
            "higher_is_better": judge.higher_is_better,
            "floor": judge.floor,
        },
        "constraints": {
            "max_drop": job.options.max_drop,
            "max_latency_ms": limits.max_latency_ms,
            "max_size_mb": limits.max_size_mb,
        },
        "warnings": _warnings(job, found),
        **_target_dict(first),
    }
    report["missed"] = [
        _named(each, sentence)
        for each in found
        for sentence in missed_sentences(each.choice, limits, job.recipe.name)
    ]
    report["constraints_met"] = not report["missed"]
    report["further_targets"] = {each.target.name: _target_dict(each) for each in found[1:]}
    report["interrupted"] = any(each.interrupted for each in found)
    return report


def _ended_early(found: Found) -> str:
    """What stands before the verdict of a run that was cut off; else nothing."""
    if not (found.undone or found.interrupted):
        return ""
    return f"{'Interrupted' if found.interrupted else 'Out of time'}, the best by then: "


def _where(found: Found) -> str:
    """Where latency was measured, if that is not this machine."""
    return f" Measured on {found.measured_on['cpu']}." if found.measured_on else ""


def _warnings(job: Job, found: Sequence[Found]) -> list[str]:
    doubts = [_doubt(each) for each in found]
    every = [*doubts, *job.warnings, *(w for each in found for w in each.warnings)]
    return list(dict.fromkeys(warning for warning in every if warning))


def _named(found: Found, missed: str) -> str:
    return missed if found.target.is_host else f"{found.target.name}: {missed}"


def _target_dict(found: Found) -> dict[str, Any]:
    choice = found.choice
    before = side_dict(choice.baseline, _memory(found, choice.baseline))
    if found.judge.is_relative:
        before["metric"] = None  # the float model is the measure itself
    return {
        "verdict": _ended_early(found) + verdict(choice) + _where(found),
        "measured_on": found.measured_on and dict(found.measured_on),
        "before": before,
        "after": side_dict(choice.chosen, _memory(found, choice.chosen)),
        "candidates": [
            candidate_dict(o, choice.baseline, found.judge, found.layers.get(o.candidate.id, {}))
            for o in choice.outcomes
        ],
        "layers": _layer_dicts(found),
        "cells": cell_dicts(found),
        "pruning": None if found.pruning is None else dict(found.pruning),
        "analysis": None if found.analysis is None else dict(found.analysis),
        "classes": _classes(choice),
        "significance": _significance(choice),
        "gates": [asdict(gate) for gate in found.gates],
        "notes": list(found.notes),
        "skips": [asdict(skip) for skip in found.skips],
        "steps": [{"name": key, "seconds": spent} for key, spent in found.seconds.items()],
    }


def _classes(choice: Choice) -> dict[str, Any] | None:
    """Each class before and after; None where the metric has none."""
    sides = [o.score and o.score.assessment for o in (choice.baseline, choice.chosen)]
    before, after = (each and each.classes for each in sides)
    return class_changes(before, after) if before and after else None


def _significance(choice: Choice) -> dict[str, Any] | None:
    """Whether chance explains what changed; None without one verdict for each sample."""
    sides = [o.score for o in (choice.baseline, choice.chosen)]
    before, after = (None if each is None else each.verdicts for each in sides)
    return None if before is None or after is None else asdict(mcnemar(before, after))


def _doubt(found: Found) -> str:
    score = found.choice.baseline.score
    return score.assessment.doubt("the float model") if score and score.assessment else ""


def _memory(found: Found, outcome: Outcome) -> float | None:
    """Peak memory in MiB, on this machine or on the board."""
    return found.memory.get(outcome.candidate.answers_id)


def _layer_dicts(found: Found) -> list[dict[str, Any]]:
    """Every node that computes, as it is in the chosen artifact."""
    artifact = found.choice.chosen.candidate.artifact
    integer = set(artifact.integer_nodes)
    rows = []
    for node in artifact.lowered.nodes():
        label = node.name or "?"
        if label in integer:
            bits = artifact.weight_bits.get(label)
            kind = "int8" if bits is None else f"int{bits} weights"
            row = {"precision": kind, "sqnr_db": found.layer_sqnr.get(label), "why": ""}
        elif label in artifact.reasons or node.op_type in MATMULS | RECURRENT:
            why = artifact.reasons.get(label) or "the float model was chosen"
            row = {"precision": "float", "sqnr_db": None, "why": why}
        else:
            continue
        rows.append({"name": label, "op": node.op_type, **row})
    return rows


def model_dict(job: Job) -> dict[str, Any]:
    """The `model` of a report: where it comes from, and how large it is."""
    content = job.original.to_bytes()
    return {
        "source": job.original.source,
        "sha256": hashlib.sha256(content).hexdigest(),
        "params": job.original.param_count(),
        "bytes": len(content),
        "ops": dict(sorted(Counter(node.op_type for node in job.original.nodes()).items())),
    }


def data_dict(job: Job) -> dict[str, Any]:
    """The `data` of a report: which samples, and how many."""
    return {
        "source": "made-up inputs" if job.made_up else job.calibration.source,
        "sha256": job.calibration.digest(),
        "evaluation_sha256": job.evaluation.digest(),
        "calibration_samples": 0
        if job.made_up or not job.recipe.needs_samples
        else len(job.calibration),
        "evaluation_samples": len(job.evaluation),
        "evaluation_steps": sum(job.evaluation.lengths) if job.evaluation.sequences else None,
        "labels": job.evaluation.has_labels,
    }


def versions() -> dict[str, str]:
    """Versions of everything that had a part in the result."""
    packages = ("edgebm", "numpy", "onnx", "onnx-ir", "onnxruntime", "openvino")
    return {"python": platform.python_version(), **{p: version(p) for p in packages}}
