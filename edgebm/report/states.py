"""What a report says of states that are handed from step to step, in sentences."""

from __future__ import annotations

from typing import Any

from edgebm.report.rows import Report, candidate_name

_PLACES = ("first", "middle", "last")


def state_sentences(report: Report) -> list[str]:
    """The pairs, and how the error of the chosen candidate grows over the steps of a sequence."""
    states = report.get("states") or []
    if not states:
        return []
    pairs = [
        f"{s['input']} from {s['output']} ({s['found']}; at first {s['initial']})" for s in states
    ]
    return [f"States: {'; '.join(pairs)}.", *_drift(report)]


def _drift(report: Report) -> list[str]:
    after = report["after"]
    chosen: dict[str, Any] = next(
        (c for c in report["candidates"] if c["id"] == after["candidate"]), {}
    )
    drift = chosen.get("drift_db")
    if not drift:
        return []
    known = [
        f"{db:.1f} dB at the {place} step"
        for place, db in zip(_PLACES, drift, strict=True)
        if db is not None
    ]
    what = f"{candidate_name(after)} carries its own states"
    return [f"{what}; against float it keeps {', '.join(known)} of a sequence."] if known else []
