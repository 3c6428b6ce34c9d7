"""The verb `plan`: what `compress` would do with the same arguments, in a few seconds."""

from __future__ import annotations

import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from edgebm.ir.given_states import GivenPair
from edgebm.recipe import Recipe
from edgebm.search.choose import Limits
from edgebm.search.gate import parse_gates
from edgebm.search.initial_state import InitialState
from edgebm.search.job import Options, Progress, quiet
from edgebm.search.plan import plan_dict
from edgebm.search.prepared import Given, prepared
from edgebm.search.shapes import ShapeLists
from edgebm.search.stateful import wanted_states


def plan(  # noqa: PLR0913 - the keywords of compress
    model: object,
    *,
    target: str | Path | Sequence[str | Path] = "host",
    recipe: str | Path | Recipe = "int8",
    data: object = None,
    eval: object = None,  # noqa: A002 - the name of the option
    metric: object = None,
    max_drop: float | None = None,
    max_latency_ms: float | None = None,
    max_size_mb: float | None = None,
    gates: Sequence[str] = (),
    subset_size: int | None = None,
    ignored: Sequence[str] = (),
    state: Sequence[GivenPair] | None = None,
    streaming: bool = False,
    initial_state: InitialState | None = None,
    shapes: ShapeLists | None = None,
    threads: int | Sequence[int] | None = None,
    seed: int = 0,
    measure_s: float = 60.0,
    budget_s: float | None = None,
    labels: object = None,
    progress: Progress | None = None,
) -> dict[str, Any]:
    """Say what `compress` would do with these arguments, and how long it would take.

    Nothing is calibrated, built, measured or written. Which layers can be integers is known from
    the graph alone; the time follows from a few calls of the float model on one sample, and is
    an estimate: within a factor of two where the machine is as busy as now. All arguments are as
    for `compress`, and wrong ones are refused alike.

    Returns:
        `targets`: for each `placements` (by runtime and kind: what is `quantized`, what is
        `refused` and why), `candidates`, `skips`, `failures` and `estimate`; and `estimate`:
        `seconds` in all and by stage. `model`, `data`, `recipe`, `judged_by`, `warnings` say of
        what. JSON types only.

    Raises:
        EdgebmError: see `edgebm.errors`.
    """
    options = Options(
        subset_size=subset_size,
        ignored=tuple(ignored),
        shapes=shapes or {},
        threads=(threads,) if isinstance(threads, int) else tuple(threads or ()),
        seed=seed,
        measure_s=measure_s,
        budget_s=budget_s,
        max_drop=max_drop,
        limits=Limits(max_latency_ms, max_size_mb),
        gates=parse_gates(gates),
        wanted=wanted_states(state, streaming=streaming, initial_state=initial_state),
    )
    tick = progress or quiet
    given = Given(data, labels, metric, eval)
    start = time.perf_counter()
    job, targets = prepared(model, target, recipe, options, given, tick)
    return plan_dict(job, targets, time.perf_counter() - start, tick)
