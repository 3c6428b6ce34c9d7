"""What was cut of the model before it was quantized: each amount that was tried, as text."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from edgebm.report.rows import NONE, Report, metric_text, ms


@dataclass(frozen=True, slots=True)
class CutRow:
    """One amount: what is left, how fast it is in float and as it was built, and the result."""

    amount: str
    parameters: str
    in_float: str
    speedup: str
    metric: str
    result: str
    taken: bool


def cut_rows(report: Report) -> list[CutRow]:
    """A row for the model as large as it is, and one for each trial; none where nothing is cut."""
    found = report.get("pruning")
    if not found:
        return []
    trials, unit = found["trials"], str(report["metric"]["unit"])
    taken = any(trial["taken"] for trial in trials)
    whole = CutRow(
        "nothing cut",
        _count(found["params"]),
        next((ms(t["float_ms"][0]) for t in trials if t["float_ms"]), NONE),
        _times(found["unpruned_speedup"]),
        NONE,
        "" if taken else "taken",
        not taken,
    )
    return [whole, *(_row(trial, found["params"], unit) for trial in trials)]


def _row(trial: Mapping[str, Any], params: int, unit: str) -> CutRow:
    left = f"{_count(trial['params'])} ({100 * trial['params'] / max(1, params):.0f} %)"
    return CutRow(
        f"{100 * trial['amount']:.0f} % of the recipe's sparsity",
        left,
        ms(trial["float_ms"][1]) if trial["float_ms"] else NONE,
        _times(trial["speedup"]),
        metric_text(trial["metric"], unit),
        "taken" if trial["taken"] else str(trial["why"]),
        bool(trial["taken"]),
    )


def _times(ratio: float | None) -> str:
    return NONE if ratio is None else f"{ratio:.2f} times float"


def _count(params: int) -> str:
    return f"{params / 1e6:.2f} M" if params >= 1e5 else f"{params:,}"
