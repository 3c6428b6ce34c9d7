"""Is it safe to compute in FP16: how every value is over the samples."""

from __future__ import annotations

from edgebm.backends.half import needs_f32
from edgebm.backends.half_masks import settle_masks
from edgebm.backends.runtimes import is_gpu
from edgebm.exec.extents import note_extents
from edgebm.ir.model import Model
from edgebm.ir.traits import RECURRENT
from edgebm.pruning.semi_structured import sparse_layers
from edgebm.search.candidates import Artifact
from edgebm.search.job import Job, Progress
from edgebm.target import Target

STEP = "check f16"
_SHOWN = 5


def wants_half(job: Job, target: Target) -> bool:
    """Whether something is to be written in FP16 for `target`."""
    allowed = "f16" in target.precisions and "f16" in job.recipe.precisions
    return allowed and any(map(is_gpu, target.runtimes))


def with_extents(job: Job, model: Model, progress: Progress) -> Model:
    """A copy of `model` with masks that FP16 has and the extent of every float value.

    Raises:
        DataError: the model does not run on a sample.
    """
    total, done = len(job.calibration), 0

    def tick() -> None:
        nonlocal done
        done += 1
        progress(STEP, done, total)

    progress(STEP, 0, total)
    return note_extents(settle_masks(model), job.calibration.feeds(), tick)


def half_notes(job: Job, artifact: Artifact) -> list[str]:
    """What was written in FP16, how far that is checked, and what was not, for the report."""
    if artifact.precision != "f16":
        return []
    made_up = "made-up inputs; samples (-d) would prove more"
    over = made_up if job.made_up else f"{len(job.calibration)} calibration samples"
    notes = [f"no value overflows f16 on {over}"]
    if artifact.integer_nodes:
        notes.append(
            f"{len(artifact.integer_nodes)} nodes are meant for int8; which layers run in it is "
            "read from the engine on the device (session.report())"
        )
    if kept := needs_f32(artifact.lowered):
        shown = [f"'{name}' ({why})" for name, why in list(kept.items())[:_SHOWN]]
        more = ", ..." if len(kept) > _SHOWN else ""
        notes.append(f"{len(kept)} nodes stay in f32 beside f16: {', '.join(shown)}{more}")
    cells = [node.name or "?" for node in artifact.lowered.nodes(*RECURRENT)]
    if "sparse_weights" in artifact.settings:
        found = sparse_layers(artifact.lowered)
        notes.append(
            f"{sum(found.values())} of {len(found)} layers are 2:4 sparse as they are stored; "
            "TensorRT times its sparse kernels for them and takes them where they are faster"
        )
    if cells:
        notes.append(f"recurrent layers run in f16, not in integers: {', '.join(cells)}")
    return notes
