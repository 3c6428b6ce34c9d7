"""What compression did to each class, and whether chance explains it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from edgebm.report.blame import printable
from edgebm.report.rows import Report

_SIGNIFICANT = 0.05


@dataclass(frozen=True, slots=True)
class ClassRow:
    """One class: how many samples it has, and its figure in float and compressed."""

    label: str
    count: int
    before: float
    after: float


def class_rows(classes: Mapping[str, Any] | None) -> list[ClassRow]:
    """The classes that were rated, those that lost most first."""
    if not classes:
        return []
    keys = ("labels", "counts", "before", "after")
    rows = [
        ClassRow(printable(str(label)), int(count), float(before), float(after))
        for label, count, before, after in zip(*(classes[key] for key in keys), strict=True)
        if before is not None and after is not None
    ]
    return sorted(rows, key=lambda row: row.after - row.before)


def class_sentences(report: Report) -> list[str]:
    """The class that lost most, and what the test of significance says; empty without either."""
    classes, test = report.get("classes") or {}, report.get("significance")
    worst = classes.get("worst")
    return [
        *([_worst(worst, printable(str(classes["measure"])))] if worst else []),
        *([significance_text(test)] if test else []),
    ]


def _worst(worst: Mapping[str, Any], measure: str) -> str:
    label = printable(str(worst["class"]))
    if worst["drop"] <= 0:
        return f"No class lost: each keeps its {measure}."
    return (
        f"Class {label} lost most: its {measure} went from {worst['before']:.2f} to "
        f"{worst['after']:.2f}."
    )


def significance_text(test: Mapping[str, Any]) -> str:
    """Samples lost and won, and whether that differs from chance at 5 %."""
    lost, won, p = int(test["lost"]), int(test["won"]), test["p_value"]
    subject = f"{lost} sample right before is" if lost == 1 else f"{lost} samples right before are"
    counts = f"{subject} wrong now, {won} the other way"
    if not lost + won:
        return "Every sample is judged as before."
    if p is None:
        return f"{counts}."
    shown = "p < 0.001" if p < 0.001 else f"p = {p:.3f}"
    if p > _SIGNIFICANT:
        return f"{counts}: a difference that chance explains (McNemar's test, {shown})."
    return f"{counts}: more than chance explains (McNemar's test, {shown})."
