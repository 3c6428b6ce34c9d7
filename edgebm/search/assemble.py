"""Everything that can be tried for one target: artifacts of each runtime, and ways to run them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from edgebm.backends.dialects import Grid
from edgebm.errors import BackendFailed, UsageError
from edgebm.ir.annotate import has_ranges
from edgebm.ir.model import Model
from edgebm.search.build import (
    build_float,
    build_integer,
    build_promises,
    build_turned,
    build_weight_only,
)
from edgebm.search.candidates import Artifact, Candidate, enumerate_candidates
from edgebm.search.deadline import Deadline
from edgebm.search.job import Job
from edgebm.target import Target


@dataclass(frozen=True, slots=True)
class Graphs:
    """The annotated model and what goes with it, each None without one.

    `turned` has GRUs in the form with an INT8 kernel (`Decisions.turned`), `untrained` the same
    to be timed with (`turning.py`), and `promised` made-up ranges (`with_made_up_ranges`).
    """

    decided: Model
    turned: Model | None = None
    untrained: Model | None = None
    promised: Model | None = None


def build_floats(
    job: Job, target: Target, deadline: Deadline, failures: list[str]
) -> list[Artifact]:
    """The float model for each runtime; when time is over, for the first that takes it.

    Of a student there are two: the original, and for the same runtimes itself.

    `failures` gets a sentence for each runtime that does not.

    Raises:
        BackendFailed: none takes it.
    """
    floats: list[Artifact] = []
    for runtime in target.runtimes:
        if floats and deadline.over:
            break
        try:
            floats.append(build_float(job.original, runtime))
        except BackendFailed as error:
            failures.append(str(error))
    if not floats:
        raise BackendFailed("no runtime takes the model: " + "; ".join(failures))
    students = (f.runtime for f in floats if job.is_student)
    return [*floats, *(replace(build_float(job.model, each), pruned=True) for each in students)]


def build_integers(
    job: Job,
    runtime: str,
    graphs: Graphs,
    grids: Sequence[Grid],
    failures: list[str],
) -> list[Artifact]:
    """Integer artifacts of one runtime.

    Args:
        job: whose model it is.
        runtime: "onnxruntime" or "openvino".
        graphs: the annotated model and what goes with it.
        grids: the chosen grid first.
        failures: gets a sentence for each placement that the runtime refuses.
    """
    integers: list[Artifact] = []
    build = build_integer if has_ranges(graphs.decided) else build_weight_only
    every = build(graphs.decided, runtime, grids, job.is_ignored)
    if graphs.turned is not None:
        every += build_turned(graphs.turned, runtime, grids, job.is_ignored)
    if graphs.untrained is not None:
        waiting = build_turned(graphs.untrained, runtime, grids, job.is_ignored)
        every += [replace(a, promise=True) for a in waiting if isinstance(a, Artifact)]
    for built in every:
        if isinstance(built, BackendFailed):
            failures.append(str(built))
        else:
            integers.append(built)
    if graphs.promised is not None:
        integers += build_promises(graphs.promised, runtime, grids, job.is_ignored)
    return [replace(artifact, pruned=job.is_student) for artifact in integers]


def all_candidates(job: Job, target: Target, artifacts: Sequence[Artifact]) -> list[Candidate]:
    """Every artifact at every thread count and precision that the target and the recipe have.

    Raises:
        UsageError: the target leaves out f32.
    """
    wanted = job.recipe.precisions
    precisions = [p for p in ("f32", "bf16") if p in target.precisions and p in wanted]
    if "f32" not in precisions:
        raise UsageError(
            f"the target {target.name} has only {', '.join(target.precisions)}; the "
            "float model is what everything is compared with",
            hint="add f32 to 'precisions' of the target",
        )
    return enumerate_candidates(
        artifacts,
        threads=job.options.threads or target.threads,
        precisions=precisions,
        static_shapes=job.static_shapes(),
    )
