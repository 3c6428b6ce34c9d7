"""From the arguments of a verb to a job: every one of them checked, and no work begun."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from edgebm.errors import UsageError
from edgebm.importers import import_model
from edgebm.recipe import Recipe, load_recipe
from edgebm.runtime.candidate_file import board_key
from edgebm.runtime.journal import Journal
from edgebm.search.job import Job, Options, Progress
from edgebm.search.prepare import prepare
from edgebm.target import Target, load_target


@dataclass(frozen=True, slots=True)
class Given:
    """The samples and the measure as the user named them; see `compress`.

    `figures` may hold those of boards (`search/board.py`).
    """

    data: object = None
    labels: object = None
    metric: object = None
    evaluation: object = None
    figures: Journal = field(default_factory=Journal)


def prepared(
    model: object,
    target: str | Path | Sequence[str | Path],
    recipe: str | Path | Recipe,
    options: Options,
    given: Given,
    progress: Progress,
) -> tuple[Job, list[Target]]:
    """What is to be done, and for which targets: every argument checked, and no work begun.

    Raises:
        EdgebmError: see `edgebm.errors`.
    """
    targets = [load_target(t) for t in _listed(target)]
    wanted = recipe if isinstance(recipe, Recipe) else load_recipe(recipe)
    _check_options(options, targets, given.figures)
    progress("import", 0, 1)
    imported = import_model(model)
    progress("import", 1, 1)
    job = prepare(
        imported,
        wanted,
        options,
        data=given.data,
        labels=given.labels,
        metric=given.metric,
        evaluation=given.evaluation,
    )
    return job, targets


def _listed(target: str | Path | Sequence[str | Path]) -> list[str | Path]:
    listed = [target] if isinstance(target, str | Path) else list(target)
    if not listed or len(set(map(str, listed))) < len(listed):
        raise UsageError(
            "give at least one target, and each only once", hint="leave out what is doubled"
        )
    return listed


def _check_options(options: Options, targets: Sequence[Target], figures: Journal) -> None:
    """Refuse numbers that make no sense, all at once."""
    limits = options.limits
    faults = [
        f"{name} must be above 0, not {value:g}"
        for name, value in (
            ("max_latency_ms", limits.max_latency_ms),
            ("max_size_mb", limits.max_size_mb),
            ("measure_s", options.measure_s),
            ("budget_s", options.budget_s),
            ("subset_size", options.subset_size),
        )
        if value is not None and not value > 0
    ]
    if options.max_drop is not None and not options.max_drop >= 0:
        faults.append(f"max_drop must be 0 or more, not {options.max_drop:g}")
    faults += [f"threads must be 1 or more, not {t}" for t in options.threads if t < 1]
    untimed = [t.name for t in targets if not t.is_host and not figures.has(*board_key(t.name))]
    if limits.max_latency_ms is not None and untimed:
        faults.append(
            f"max_latency_ms cannot be kept for {', '.join(untimed)}, which is not timed: that "
            "takes the host, or figures of the board in measurements"
        )
    if faults:
        raise UsageError(
            "; ".join(faults), hint="docs/how-to/compress.md tells what each limit means"
        )
