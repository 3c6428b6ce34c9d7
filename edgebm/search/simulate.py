"""What integers cost, computed in float with their rounding: no kernel, no overflow, no timing."""

from __future__ import annotations

from collections.abc import Sequence

from edgebm.backends import onnxruntime as onnxruntime_backend
from edgebm.backends.dialects import Grid
from edgebm.backends.half_simulation import in_f32, read_model
from edgebm.backends.qdq import lower
from edgebm.backends.runtimes import dialects_of, grids_of, is_gpu
from edgebm.exec.compare import layer_sqnr_db
from edgebm.exec.rounded_cells import with_rounded_cells
from edgebm.ir.annotate import has_ranges
from edgebm.ir.model import Model
from edgebm.search.candidates import AT_RUN_TIME, Artifact, Candidate
from edgebm.search.job import Job, Progress
from edgebm.spec import EngineConfig
from edgebm.target import Target

_SAMPLES = 8


def rank_grids(
    job: Job, target: Target, decided: Model, progress: Progress
) -> tuple[list[Grid], str]:
    """Bits for weights and activations, those that keep most of the outputs' signal first.

    Measured on a few samples, on the placement that every runtime comes close to.

    Returns:
        The grids that do not overflow on the target, and a sentence for the report, empty
        where there was nothing to choose.
    """
    grids = list(grids_of(target.runtimes, frozenset(target.features)))
    outputs = [spec.name for spec in job.face.outputs if spec.dtype == "float32"]
    if len(grids) == 1 or not outputs or not has_ranges(decided):
        return grids, ""
    count = min(_SAMPLES, len(job.calibration))
    kept = {}
    for done, grid in enumerate(grids):
        progress("choose grid", done, len(grids))
        dialect = dialects_of(target.runtimes[0], grid)[0]
        lowered, _ = lower(decided, dialect, job.is_ignored)
        samples = job.calibration.feeds(0, count)
        kept[grid] = min(
            layer_sqnr_db(job.model, lowered, outputs, samples, lambda: None).values()
        )
    progress("choose grid", len(grids), len(grids))
    ranked = sorted(grids, key=kept.__getitem__, reverse=True)
    figures = ", ".join(f"{grid} {db:.1f} dB" for grid, db in kept.items())
    return ranked, (
        "without VNNI this CPU adds 8 x 8 bit products in 16 bits, which overflows; of the "
        f"grids that do not, {ranked[0]} keeps most of the output ({figures})"
    )


def is_simulated(candidate: Candidate, target: Target) -> bool:
    """Whether its answers are seen here in simulation only."""
    artifact = candidate.artifact
    if is_gpu(artifact.runtime):
        return True
    exact = artifact.weight_bits or artifact.kind in {"float", *AT_RUN_TIME}
    return bool(target.missing()) and not exact


def provable(candidate: Candidate, target: Target) -> Candidate:
    """The candidate itself, or for a processor that is not this one its rounding in simulation.

    Integer kernels of another CPU may add without overflow where this one's overflow, so they
    are simulated in float with the same rounding, from the same Q/DQ graph. Products that
    take their range at run time are built not to overflow anywhere, and integers that are
    weights alone are multiplied in float. What is for a GPU is read back from its file, and its
    FP16 numbers are rounded explicitly.
    """
    artifact = candidate.artifact
    if not is_simulated(candidate, target):
        return candidate
    if is_gpu(artifact.runtime):
        graph = in_f32(read_model(artifact.files["model.onnx"]))
        simulated = Artifact(
            "onnxruntime", artifact.kind, onnxruntime_backend.build_plain(graph), graph
        )
        return Candidate(simulated, EngineConfig(settings={"emulate": "1"}))
    files = onnxruntime_backend.build_plain(with_rounded_cells(artifact.lowered))
    simulated = Artifact("onnxruntime", artifact.kind, files, artifact.lowered)
    return Candidate(simulated, EngineConfig(settings={"emulate": "1"}))


def compare_layers(
    job: Job, decided: Model, lowered: Model, nodes: Sequence[str], progress: Progress
) -> dict[str, float]:
    """SQNR in dB of each node's output in `lowered`, the errors of the layers before included.

    Compared with the decided graph in float, not with the source model: steps that even channels
    out scale the values between two layers.

    Args:
        job: its `calls` are the evaluation samples, of which a few are taken.
        decided: the model that was lowered.
        lowered: its Q/DQ form, with the names of its values.
        nodes: names of nodes; those whose output is not in both graphs are left out.
        progress: called as `progress(step, done, total)`.
    """
    outputs = {node.name or "?": node.outputs[0].name or "?" for node in lowered.nodes()}
    known = {value.name for node in decided.nodes() for value in node.outputs}
    named = {node: outputs[node] for node in nodes if outputs.get(node) in known}
    total, done = min(_SAMPLES, len(job.calls)), 0

    def tick() -> None:
        nonlocal done
        done += 1
        progress("compare layers", done, total)

    values = sorted(set(named.values()))
    if not values:
        return {}
    found = layer_sqnr_db(decided, lowered, values, job.calls.feeds(0, total), tick)
    return {node: found[value] for node, value in named.items()}
