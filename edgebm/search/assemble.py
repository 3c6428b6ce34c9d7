"""Everything that can be tried for one target: artifacts of each runtime, and ways to run them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

from edgebm.backends.dialects import Grid
from edgebm.backends.runtimes import is_gpu
from edgebm.errors import BackendFailed, UsageError
from edgebm.ir.annotate import annotated, has_ranges
from edgebm.ir.model import Model
from edgebm.search.build import (
    build_float,
    build_half,
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
    `has_extents` says whether the values of `decided` know their extents.
    """

    decided: Model
    turned: Model | None = None
    untrained: Model | None = None
    promised: Model | None = None
    has_extents: bool = False


def _no_extents(model: Model) -> None:
    """Default of `build_floats`: nothing is written in FP16."""


def build_floats(
    job: Job,
    target: Target,
    deadline: Deadline,
    failures: list[str],
    half: Callable[[Model], Model | None] = _no_extents,
) -> list[Artifact]:
    """The float model for each runtime; when time is over, for the first that takes it.

    Of a student there are two: the original, and for the same runtimes itself. On GPUs there is
    one more of each, in FP16 and preferred, if `half` gives that model with its extents.

    `failures` gets a sentence for each runtime that does not.

    Raises:
        BackendFailed: none takes it.
    """
    floats: list[Artifact] = []
    for runtime in target.runtimes:
        if floats and deadline.over:
            break
        try:
            floats += _floats(job.original, runtime, half)
        except BackendFailed as error:
            failures.append(_sentence(error))
    if not floats:
        raise BackendFailed("no runtime takes the model: " + "; ".join(failures))
    students = dict.fromkeys(f.runtime for f in floats if job.is_student)
    smaller = (each for runtime in students for each in _floats(job.model, runtime, half))
    return [*floats, *(replace(each, pruned=True) for each in smaller)]


def _floats(model: Model, runtime: str, half: Callable[[Model], Model | None]) -> list[Artifact]:
    plain = build_float(model, runtime)
    noted = half(model) if is_gpu(runtime) else None
    return [plain] if noted is None else [build_half(noted, runtime), plain]


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
        runtime: its name.
        graphs: the annotated model and what goes with it.
        grids: the chosen grid first.
        failures: gets a sentence for each placement that the runtime refuses.
    """
    integers: list[Artifact] = []
    if why := why_no_integers(job, runtime, graphs):
        failures.append(why)
        return []
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


def why_no_integers(job: Job, runtime: str, graphs: Graphs) -> str:
    """Why a GPU gets no integers, as a sentence; "" if it may, or nothing is quantized."""
    if not is_gpu(runtime) or not annotated(graphs.decided):
        return ""
    if not has_ranges(graphs.decided) and job.made_up and job.recipe.needs_samples:
        return f"{runtime}: int8 needs samples (-d); without, f16 is the smallest that it takes"
    if not has_ranges(graphs.decided):
        return f"{runtime}: weights alone are not stored as integers there; f16 halves them"
    if not graphs.has_extents:
        return f"{runtime}: int8 goes with f16, which the recipe leaves out of its precisions"
    return ""


def _sentence(error: BackendFailed) -> str:
    return f"{error} ({error.hint})" if error.hint else str(error)


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
        axes=job.profile_axes() if any(map(is_gpu, target.runtimes)) else {},
        listed=bool(job.options.shapes),
    )
