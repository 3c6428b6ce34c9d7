"""The verb `prune`: take out what matters least, and nothing else."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from edgebm.errors import ConstraintMissed, UnsupportedModel
from edgebm.importers import import_model
from edgebm.ir.model import Model
from edgebm.passes.base import Skip
from edgebm.passes.catalog import AnyStep
from edgebm.passes.prune import Prune
from edgebm.passes.recognize_cells import RecognizeCells
from edgebm.recipe import Recipe
from edgebm.runtime.journal import Journal
from edgebm.search.deadline import Deadline
from edgebm.search.float_race import float_race, not_faster
from edgebm.search.job import Options, Progress, quiet
from edgebm.search.prepare import prepare
from edgebm.search.sparsity import shrunk
from edgebm.target import load_target


@dataclass(frozen=True, slots=True)
class Pruned:
    """What `prune` made. `Model.to_bytes()` of `model` is the ONNX file.

    `notes` say what was cut, `skips` what was left whole and why. `float_ms` are the median
    milliseconds of a call before and after in f32, each on its fastest runtime; None where
    nothing was timed.
    """

    model: Model
    notes: tuple[str, ...]
    skips: tuple[Skip, ...]
    float_ms: tuple[float, float] | None


def prune(  # noqa: PLR0913 - one keyword per option of the command line
    model: object,
    data: object,
    *,
    steps: Sequence[AnyStep] = (Prune(),),
    target: str | Path = "host",
    ignored: Sequence[str] = (),
    seed: int = 0,
    measure: bool = True,
    progress: Progress | None = None,
) -> Pruned:
    """Cut a model, and measure that it is faster. It is not trained: `distill` does that.

    Args:
        model: as for `compress`.
        data: a few hundred samples, labels are not looked at: what they show is what matters.
        steps: `edgebm.passes.prune.Prune` and `edgebm.passes.drop_blocks.DropBlocks` values.
        target: where it is to be fast.
        ignored: node names, patterns or op types that stay whole.
        seed: of every random choice.
        measure: whether layers of other widths and both models are timed on the host; widths
            that save no time are not cut then, and a cut model that is not faster is refused.
        progress: called as `progress(step, done, total)`.

    Raises:
        UnsupportedModel: nothing was cut; says of each layer why not.
        ConstraintMissed: the cut model is not faster; with the figures.
        EdgebmError: see `edgebm.errors`.
    """
    tick, board = progress or quiet, load_target(target)
    recipe = Recipe(version=1, name="prune", steps=(RecognizeCells(), *steps))
    options = Options(ignored=tuple(ignored), seed=seed)
    job = prepare(import_model(model), recipe, options, data=data)
    job, skips = shrunk(job, board, tick, timed=measure)
    if job.model.param_count() == job.original.param_count():
        reasons = "".join(f"\n  {skip.node}: {skip.reason}" for skip in skips)
        raise UnsupportedModel(
            f"nothing was cut of {job.original.source or 'the model'}:{reasons}",
            hint="cut more, allow more kinds of groups, or ignore fewer layers",
            details={"reasons": {skip.node: skip.reason for skip in skips}},
        )
    float_ms = float_race(job, board, tick, Journal(), Deadline()) if measure else None
    if reason := not_faster(float_ms):
        raise ConstraintMissed(
            f"the pruned model is refused: {reason}",
            hint="cut more, cut whole blocks, or write it all the same with measure=False "
            "(--no-measure)",
            details={"float_ms": float_ms, "notes": job.notes},
        )
    return Pruned(job.model, tuple(job.notes), tuple(skips), float_ms)
