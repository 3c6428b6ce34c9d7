"""From the outcome of a search to a bundle: golden samples, variants, manifest, report."""

from __future__ import annotations

import json
import math
import os
from collections.abc import Mapping, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np

from edgebm.bundle_writer import golden_members, sample_members, write_bundle
from edgebm.errors import UsageError
from edgebm.ir.axis_limits import axis_limits
from edgebm.ir.indices import index_limits
from edgebm.report.html import render_html
from edgebm.runtime.candidate_file import MADE_FROM, SEARCH, STRUCTURES
from edgebm.runtime.npy import npy_bytes
from edgebm.search.board import made_from, untimed_note
from edgebm.search.found import Found
from edgebm.search.golden import golden_samples
from edgebm.search.job import Job
from edgebm.search.shapes import axis_ranges
from edgebm.search.summary import report_dict, versions
from edgebm.search.variants import Packed, packed
from edgebm.spec import Manifest, StateSpec


def write_result(
    job: Job,
    found: Sequence[Found],
    out: Path | None,
    *,
    force: bool,
    keep: str | os.PathLike[str] | None,
    everything: bool = False,
) -> tuple[Path | None, dict[str, Any]]:
    """Write the bundle (unless `out` is None) and return its path and the report.

    With `everything` it holds all candidates beside the chosen ones.

    Raises:
        UsageError: the path cannot be written.
    """
    name = out.stem if out is not None else "model"
    report = report_dict(job, found, name)
    if keep is not None:
        _keep_graphs(job, found, Path(keep))
    if out is None:
        return None, report
    golden = golden_samples(job, found[0])
    members = golden_members(golden.inputs, golden.outputs)
    states, initial = _states(job)
    members |= initial
    targets = [packed(job, each, golden, everything=everything) for each in found]
    for each in targets:
        members |= each.files
    if everything:
        members |= sample_members([job.sample()[spec.name] for spec in job.face.inputs])
        _tell_candidates(report, found, targets)
    members["report.json"] = _json_bytes(report)
    # The page shows what the file says: a later 'edgebm report' draws the same one.
    members["report.html"] = render_html(finite(report)).encode("utf-8")
    manifest = Manifest(
        name=name,
        edgebm_version=version("edgebm"),
        inputs=job.face.inputs,
        outputs=job.face.outputs,
        variants=tuple(each.chosen for each in targets),
        candidates=tuple(c for each in targets for c in each.candidates),
        states=states,
        axes={**axis_ranges(job.face, axis_limits(job.original)), **job.states.axes},
        index_limits=index_limits(job.model),
        ranges=_input_ranges(job),
        golden=len(golden.inputs),
        constraints_met=not report["missed"],
        provenance={
            "model": report["model"],
            "data": report["data"],
            "recipe": report["recipe"],
            "seed": job.options.seed,
            "versions": versions(),
            **({SEARCH: _search(job, found, targets)} if everything else {}),
        },
    )
    return write_bundle(out, manifest, members, force=force), report


def write_anyway(
    job: Job,
    found: Sequence[Found],
    out: Path | None,
    *,
    force: bool,
    keep: str | os.PathLike[str] | None,
    everything: bool = False,
) -> tuple[Path | None, dict[str, Any]]:
    """As `write_result`, also if the user interrupts just now: there is something to show.

    Raises:
        UsageError: as there.
        KeyboardInterrupt: the run was interrupted before, or it is the second time.
    """
    try:
        return write_result(job, found, out, force=force, keep=keep, everything=everything)
    except KeyboardInterrupt:
        if any(each.interrupted for each in found):
            raise
    for each in found:
        each.interrupted = True
    found[0].warnings.append("interrupted while the bundle was written; nothing was left out")
    return write_result(job, found, out, force=True, keep=keep, everything=everything)


def _search(job: Job, found: Sequence[Found], targets: Sequence[Packed]) -> dict[str, Any]:
    """By target, what the host must know to recognize figures of its candidates again."""
    return {
        each.target.name: {
            MADE_FROM: made_from(job, each.target),
            STRUCTURES: target.structures,
        }
        for each, target in zip(found, targets, strict=True)
    }


def _tell_candidates(
    report: dict[str, Any], found: Sequence[Found], targets: Sequence[Packed]
) -> None:
    """Which candidates are in the bundle, how their self-tests ended, and what to do with them."""
    report["bundled"] = {}
    for each, target in zip(found, targets, strict=True):
        name = each.target.name
        report["bundled"][name] = {
            "simulated": bool(each.target.missing()),
            "tests": target.tests,
        }
        part = report if each is found[0] else report["further_targets"][name]
        if note := untimed_note(each, len(target.candidates)):
            part["notes"].append(note)
        report["warnings"] += [
            f"{name}: {test['name']} is not in the bundle: {test['failed']}"
            for test in target.tests
            if test["failed"]
        ]


def _states(job: Job) -> tuple[tuple[StateSpec, ...], dict[str, bytes]]:
    """The states, and the members that hold where those begin that do not at zero."""
    specs: list[StateSpec] = []
    members: dict[str, bytes] = {}
    for index, pair in enumerate(job.states.pairs):
        member = ""
        if pair.input in job.states.initial:
            member = f"states/{index}.npy"
            members[member] = npy_bytes(job.states.initial[pair.input])
        specs.append(StateSpec(pair.input, pair.output, member))
    return tuple(specs), members


def _input_ranges(job: Job) -> dict[str, tuple[float, float]]:
    """Smallest and largest value of each float input over the calibration samples."""
    if job.made_up:
        return {}
    floats = {s.name for s in job.face.inputs if np.dtype(s.dtype).kind == "f"}
    scanned = job.calibration.scan().ranges
    return {name: (low, high) for name, (low, high) in scanned.items() if name in floats}


def _keep_graphs(job: Job, found: Sequence[Found], folder: Path) -> None:
    """The graphs of each stage as ONNX files, to look at in a viewer or to bisect."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "imported.onnx").write_bytes(job.original.to_bytes())
        for each in found:
            for outcome in each.choice.outcomes:
                artifact = outcome.candidate.artifact
                name = f"{artifact.runtime}-{'pruned-' * artifact.pruned}{artifact.kind}"
                if artifact.kind == "float":
                    name = "student"
                path = folder / f"{each.target.name}-{name}.onnx"
                if not outcome.candidate.is_original and not path.exists():
                    path.write_bytes(artifact.lowered.to_bytes())
    except OSError as cause:
        raise UsageError(f"--keep {folder} cannot be written: {cause}") from cause


def _json_bytes(report: Mapping[str, Any]) -> bytes:
    text = json.dumps(finite(report), indent=1, sort_keys=True, ensure_ascii=False)
    return (text + "\n").encode("utf-8")


def finite(value: Any) -> Any:
    """The same structure with NaN and infinity, which JSON has not, as None."""
    if isinstance(value, Mapping):
        return {key: finite(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [finite(item) for item in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value
