"""From the outcome of a search to a bundle: golden samples, variants, manifest, report."""

from __future__ import annotations

import json
import math
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgebm.bundle_writer import golden_members, write_bundle
from edgebm.errors import UsageError
from edgebm.ir.indices import index_limits
from edgebm.report.html import render_html
from edgebm.runtime.cpu import cpu_features
from edgebm.runtime.selftest import relative_error
from edgebm.search.found import Found
from edgebm.search.job import Job
from edgebm.search.runner import Runner
from edgebm.search.shapes import axis_ranges
from edgebm.search.summary import report_dict, versions
from edgebm.spec import Manifest, Variant

_GOLDEN = 4
_GOLDEN_BYTES = 4 << 20
# Another CPU of the same kind sums in another order; a wrong kernel is wrong by far more.
_TOLERANCE_FACTOR, _SMALLEST_TOLERANCE = 2.0, 1e-3
Arrays = list[NDArray[Any]]


@dataclass(frozen=True, slots=True)
class Golden:
    """Samples that travel in the bundle: `inputs[i][k]`, `outputs[i][k]` of the float model."""

    inputs: list[Arrays]
    outputs: list[Arrays]


def write_result(
    job: Job,
    found: Sequence[Found],
    out: Path | None,
    *,
    force: bool,
    keep: str | os.PathLike[str] | None,
) -> tuple[Path | None, dict[str, Any]]:
    """Write the bundle (unless `out` is None) and return its path and the report.

    Raises:
        UsageError: the path cannot be written.
    """
    name = out.stem if out is not None else "model"
    report = report_dict(job, found, name)
    if keep is not None:
        _keep_graphs(job, found, Path(keep))
    if out is None:
        return None, report
    golden = _golden(job, found[0])
    members = golden_members(golden.inputs, golden.outputs)
    variants = []
    for each in found:
        variant, files = _variant(job, each, golden)
        variants.append(variant)
        members |= files
    members["report.json"] = _json_bytes(report)
    members["report.html"] = render_html(report).encode("utf-8")
    manifest = Manifest(
        name=name,
        edgebm_version=version("edgebm"),
        inputs=job.face.inputs,
        outputs=job.face.outputs,
        variants=tuple(variants),
        axes=axis_ranges(job.face),
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
) -> tuple[Path | None, dict[str, Any]]:
    """As `write_result`, also if the user interrupts just now: there is something to show.

    Raises:
        UsageError: as there.
        KeyboardInterrupt: the run was interrupted before, or it is the second time.
    """
    try:
        return write_result(job, found, out, force=force, keep=keep)
    except KeyboardInterrupt:
        if any(each.interrupted for each in found):
            raise
    for each in found:
        each.interrupted = True
    found[0].warnings.append("interrupted while the bundle was written; nothing was left out")
    return write_result(job, found, out, force=True, keep=keep)


def _golden(job: Job, found: Found) -> Golden:
    """A few evaluation samples with the float model's answers; at least one, at most 4 MiB."""
    golden, size = Golden([], []), 0
    with Runner(found.choice.baseline.candidate, job.face) as runner:
        for feeds in job.evaluation.feeds(0, _GOLDEN):
            answers = runner.run(feeds)
            inputs = [np.asarray(feeds[spec.name]) for spec in job.face.inputs]
            outputs = [answers[spec.name] for spec in job.face.outputs]
            size += sum(array.nbytes for array in (*inputs, *outputs))
            if golden.inputs and size > _GOLDEN_BYTES:
                break
            golden.inputs.append(inputs)
            golden.outputs.append(outputs)
    return golden


def _variant(job: Job, found: Found, golden: Golden) -> tuple[Variant, dict[str, bytes]]:
    candidate, target = found.choice.chosen.candidate, found.target
    artifact = candidate.artifact
    folder = f"variants/{target.name}/{artifact.runtime}"
    # The host variant was measured on this very CPU; on a lesser one it may be wrong or slow.
    features = cpu_features() if target.is_host else frozenset(target.features)
    variant = Variant(
        target=target.name,
        runtime=artifact.runtime,
        precision=candidate.precision,
        files={short: f"{folder}/{short}" for short in artifact.files},
        config=candidate.config,
        runtime_version=version(artifact.runtime),
        requires=tuple(sorted(features)),
        tolerance=_tolerances(job, found, golden),
        layers=found.layers.get(candidate.id, {}),
        cells=found.cells.get(candidate.id, {}),
    )
    return variant, {f"{folder}/{short}": data for short, data in artifact.files.items()}


def _tolerances(job: Job, found: Found, golden: Golden) -> dict[str, float]:
    """Twice the worst relative error of each output here, against the float model."""
    worst = {spec.name: 0.0 for spec in job.face.outputs}
    with Runner(found.provable, job.face) as runner:
        for inputs, outputs in zip(golden.inputs, golden.outputs, strict=True):
            feeds = {s.name: x for s, x in zip(job.face.inputs, inputs, strict=True)}
            got = runner.run(feeds)
            for spec, want in zip(job.face.outputs, outputs, strict=True):
                worst[spec.name] = max(worst[spec.name], relative_error(got[spec.name], want))
    return {
        name: max(_SMALLEST_TOLERANCE, _TOLERANCE_FACTOR * error) for name, error in worst.items()
    }


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
        (folder / "imported.onnx").write_bytes(job.model.to_bytes())
        for each in found:
            for outcome in each.choice.outcomes:
                artifact = outcome.candidate.artifact
                path = folder / f"{each.target.name}-{artifact.runtime}-{artifact.kind}.onnx"
                if artifact.kind != "float" and not path.exists():
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
