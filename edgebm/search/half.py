"""Is it safe to compute in FP16 here: the largest magnitude of every value, over the samples."""

from __future__ import annotations

from edgebm.backends.half_masks import settle_masks
from edgebm.backends.runtimes import is_gpu
from edgebm.exec.peaks import note_peaks
from edgebm.ir.model import Model
from edgebm.search.job import Job, Progress
from edgebm.target import Target

STEP = "check f16"


def wants_half(job: Job, target: Target) -> bool:
    """Whether something is to be written in FP16 for `target`."""
    allowed = "f16" in target.precisions and "f16" in job.recipe.precisions
    return allowed and any(map(is_gpu, target.runtimes))


def with_peaks(job: Job, model: Model, progress: Progress) -> Model:
    """A copy of `model` with masks that FP16 has and the peak of every float value.

    Raises:
        DataError: the model does not run on a sample.
    """
    total, done = len(job.calibration), 0

    def tick() -> None:
        nonlocal done
        done += 1
        progress(STEP, done, total)

    progress(STEP, 0, total)
    return note_peaks(settle_masks(model), job.calibration.feeds(), tick)


def half_note(job: Job) -> str:
    """How far the check of FP16 goes, as a sentence for the report."""
    if job.made_up:
        return "no value overflows f16 on made-up inputs; samples (-d) would prove more"
    return f"no value overflows f16 on {len(job.calibration)} calibration samples"
