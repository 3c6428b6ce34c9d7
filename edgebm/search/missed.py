"""What to say of a limit that no candidate keeps: by how much, and what to try, from figures."""

from __future__ import annotations

from edgebm.search.choose import (
    Choice,
    Limits,
    Outcome,
    latency_fault,
    shown_latency,
    size_fault,
    size_mb,
)

ACCURATE, SMALLEST = "int8-accurate", "w4"


def missed_sentences(choice: Choice, limits: Limits, recipe: str) -> list[str]:
    """One sentence for each limit that the chosen candidate misses; none where it keeps all.

    `recipe` is the name of what was tried, which is not proposed again.
    """
    if not choice.missed:
        return []
    size, latency = size_fault(choice.chosen, limits), latency_fault(choice.chosen, limits)
    found = [f"{size}: {_size_advice(choice, limits, recipe)}"] if size else []
    found += [f"{latency}: {_latency_advice(choice, limits, recipe)}"] if latency else []
    return found or choice.missed


def _size_advice(choice: Choice, limits: Limits, recipe: str) -> str:
    smallest = min(_usable(choice), key=size_mb)
    figure = f"{size_mb(smallest):.3f} MB"
    if not size_fault(smallest, limits):
        return f"{smallest.candidate.id} has {figure}, but {_refusal(smallest, recipe)}"
    tries = [] if recipe == SMALLEST else [f"-r {SMALLEST}, which stores weights in 4 bits"]
    advice = f"try {', or '.join([*tries, 'a smaller model'])}"
    least = f"the smallest candidate of any accuracy, {smallest.candidate.id}, has {figure}"
    if smallest is choice.chosen:
        least = "no candidate of any accuracy is smaller"
    return f"{least}; {advice}"


def _latency_advice(choice: Choice, limits: Limits, recipe: str) -> str:
    timed = [o for o in _usable(choice) if o.measured.p50_ms is not None]
    fastest = min(timed, key=lambda o: o.measured.p50_ms or 0.0)
    value, label = shown_latency(fastest)
    figure = f"{value:.3f} ms ({label.partition(' ')[0]})"
    if not latency_fault(fastest, limits):
        return f"{fastest.candidate.id} takes {figure}, but {_refusal(fastest, recipe)}"
    least = f"the fastest candidate of any accuracy, {fastest.candidate.id}, takes {figure}"
    if fastest is choice.chosen:
        least = "no candidate of any accuracy is faster"
    return f"{least}; try a smaller model or smaller inputs"


def _refusal(outcome: Outcome, recipe: str) -> str:
    """Why a candidate that keeps one limit was not taken, and what may mend that."""
    if outcome.status != "inaccurate":
        return f"{outcome.why}; the two limits together are too tight"
    tries = [] if recipe == ACCURATE else [f"-r {ACCURATE}"]
    tries += ["--ignored with the layers that 'edgebm analyze' blames", "a larger --max-drop"]
    return f"{outcome.why}; try {', or '.join(tries)}"


def _usable(choice: Choice) -> list[Outcome]:
    """Candidates that run and could be shipped."""
    return [o for o in choice.outcomes if o.status not in {"failed", "needs_samples"}]
