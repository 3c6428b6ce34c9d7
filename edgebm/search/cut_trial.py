"""One amount that was cut: what came of it, and why it was or was not taken."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from edgebm.search.choose import MEGABYTE
from edgebm.search.found import Found
from edgebm.search.summary import speedup


@dataclass(slots=True)
class Trial:
    """One amount of what the steps name, and what came of it.

    `amount` is a share of each step's sparsity. `float_ms` are the latencies of the original and
    of the cut model in float, before it was taught; None where nothing was timed. `found` is the
    whole search with it, None where it was refused before; `refused` says why it was not taken.
    """

    amount: float
    params: int
    notes: list[str]
    float_ms: tuple[float, float] | None = None
    found: Found | None = None
    refused: str = ""

    @property
    def keeps_limits(self) -> bool:
        """Whether something made from the student was chosen, and keeps every limit."""
        return (
            self.found is not None
            and not self.found.choice.missed
            and self.found.choice.chosen.candidate.artifact.pruned
        )


def is_better(found: Found, best: Found, prefer: str) -> bool:
    """Whether a student's search found what is to be taken in place of the best so far.

    Fewer limits are missed, or as many by something faster; smaller where the recipe prefers
    that, or where nothing was timed.
    """
    if not found.choice.chosen.candidate.artifact.pruned:
        return False
    missed = len(found.choice.missed), len(best.choice.missed)
    if missed[0] != missed[1]:
        return missed[0] < missed[1]
    speeds = speedup(found.choice), speedup(best.choice)
    if prefer == "size" or None in speeds:
        return _size_bytes(found) < _size_bytes(best)
    return speeds[0] > speeds[1]  # type: ignore[operator]


def _size_bytes(found: Found) -> int:
    return found.choice.chosen.candidate.artifact.size_bytes


def why_not_taken(trial: Trial, best: Found) -> str:
    """Why what was found with a student was not taken."""
    assert trial.found is not None
    choice = trial.found.choice
    if not choice.chosen.candidate.artifact.pruned or choice.missed:
        pruned = [o for o in choice.outcomes if o.candidate.artifact.pruned and o.score]
        return pruned[0].why if pruned else "nothing made from it keeps the limits"
    mine, others = speedup(choice), speedup(best.choice)
    if mine is None or others is None:
        return f"it has {_size_bytes(trial.found) / MEGABYTE:.3g} MB, which is no smaller"
    return f"it is {mine:.2f} times as fast as float, what was taken {others:.2f} times"


def refusal(trial: Trial) -> str:
    """Why a trial was not taken, as a sentence for the report."""
    return f"with {100 * trial.amount:.0f} % of the recipe's sparsity: {trial.refused}"


def trial_dict(trial: Trial, *, taken: bool) -> dict[str, Any]:
    """The trial in a report."""
    chosen = trial.found and trial.found.choice.chosen
    return {
        "amount": trial.amount,
        "params": trial.params,
        "float_ms": None if trial.float_ms is None else list(trial.float_ms),
        "speedup": None if trial.found is None else speedup(trial.found.choice),
        "candidate": chosen and chosen.candidate.id,
        "metric": chosen and chosen.score and chosen.score.value,
        "taken": taken,
        "why": trial.refused,
        "notes": trial.notes,
    }
