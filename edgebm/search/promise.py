"""Without samples: what static INT8 would gain, measured, though it cannot be shipped.

The range of an activation decides what it costs and not how fast it runs. So ranges of
made-up inputs are enough to time static INT8, and to tell the user what samples would buy.
"""

from __future__ import annotations

from dataclasses import replace

from edgebm.ir.annotate import has_ranges
from edgebm.ir.model import Model
from edgebm.passes.base import Context
from edgebm.passes.driver import run_passes
from edgebm.passes.quantize_activations import QuantizeActivations
from edgebm.search.choose import Choice
from edgebm.search.job import Job
from edgebm.target import Target

_WORTH_SAYING = 1.05


def with_made_up_ranges(
    job: Job, target: Target, decided: Model, context: Context
) -> Model | None:
    """`decided` with ranges to be timed with; None where that would say nothing.

    It says something where the user gave no samples, the recipe would calibrate on them, and the
    target is this machine.
    """
    steps = [s for s in job.recipe.steps if isinstance(s, QuantizeActivations)]
    if not (job.made_up and steps and target.is_host):
        return None
    own = replace(context, samples=job.calibration, skips=[])
    promised, _ = run_passes(decided, [QuantizeActivations()], own)
    return promised if has_ranges(promised) else None


def promise_note(choice: Choice) -> str:
    """What samples would buy, in measured time; empty where nothing was promised."""
    timed = [
        (outcome.measured.p50_ms, outcome.candidate.id)
        for outcome in choice.outcomes
        if outcome.candidate.artifact.promise and outcome.measured.p50_ms is not None
    ]
    chosen = choice.chosen.measured.p50_ms
    if not timed or not chosen:
        return ""
    best, name = min(timed)
    gain = chosen / best
    if gain < _WORTH_SAYING:
        return f"with samples (-d), static INT8 would be no faster: {best:.3g} ms ({name})"
    return (
        f"with samples (-d), static INT8 could run in {best:.3g} ms ({name}), "
        f"{gain:.1f} times as fast as what was chosen"
    )
