"""Pictures of what changed: steps of the repair, and classes before and after."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import MaxNLocator

from edgebm.report.blame import shortened
from edgebm.report.classes import ClassRow
from edgebm.report.rows import Report, floor_value, metric_label, metric_text
from edgebm.report.svg import FAINT, GRID, INK, row_legend, style, to_svg

MAX_CLASSES = 30
BETTER, WORSE = "#1a7f4b", "#b42318"


def repair_svg(report: Report) -> str:
    """The metric over the number of lifted layers, step by step; "" without a repair.

    Full marks were kept, hollow ones taken back.
    """
    repair = (report.get("analysis") or {}).get("repair")
    tried = [] if not repair else [t for t in repair["tried"] if t["value"] is not None]
    if not repair or not tried:
        return ""
    start = repair["before"]["value"]
    kept = [(0, start)] if start is not None else []
    kept += [(t["lifted"], t["value"]) for t in tried if t["accepted"]]
    refused = [(t["lifted"], t["value"]) for t in tried if not t["accepted"]]
    with style("repair"):
        figure = Figure(figsize=(9.6, 3.2), layout="constrained")
        ax = figure.add_subplot()
        ax.grid(color=GRID)
        ax.set_axisbelow(True)
        ax.plot(
            *zip(*sorted(kept), strict=True), "o-", color=BETTER, markersize=6
        ) if kept else None
        if refused:
            x, y = zip(*refused, strict=True)
            ax.plot(x, y, "o", color=FAINT, markerfacecolor="white", markersize=6)
        _repair_axes(ax, report, [*kept, *refused])
        return to_svg(figure)


def _repair_axes(ax: Axes, report: Report, points: Sequence[tuple[int, float]]) -> None:
    metric, floor = report["metric"], floor_value(report)
    values = [y for _, y in points] + ([] if floor is None else [floor])
    least = 0.5 if metric["unit"] in {"points", "dB"} else 0.02 * max(map(abs, values))
    pad = max(0.12 * (max(values) - min(values)), least)
    ax.set_ylim(min(values) - pad, max(values) + pad)
    right = max(x for x, _ in points)
    ax.set_xlim(-0.04 * max(right, 1), 1.04 * max(right, 1))
    ax.xaxis.set_major_locator(MaxNLocator(integer=True))
    ax.set_xlabel("layers lifted to float")
    unit = f", {metric['unit']}" if metric["unit"] else ""
    ax.set_ylabel(f"{metric_label(metric)}{unit}", parse_math=False)
    marks = [
        Line2D([], [], marker="o", color=BETTER, label="kept"),
        Line2D(
            [],
            [],
            marker="o",
            linestyle="",
            color=FAINT,
            markerfacecolor="white",
            label="taken back",
        ),
    ]
    if floor is not None:
        label = f"limit {metric_text(floor, str(metric['unit']))}"
        ax.axhline(floor, color=WORSE, linestyle=(0, (4, 3)), linewidth=1.1)
        marks.append(Line2D([], [], color=WORSE, linestyle=(0, (4, 3)), label=label))
    row_legend(ax, marks)


def classes_svg(rows: Sequence[ClassRow], measure: str) -> str:
    """Before and after of the MAX_CLASSES first of `rows`; "" if there are none."""
    rows = rows[:MAX_CLASSES]
    if not rows:
        return ""
    with style("classes"):
        figure = Figure(figsize=(9.6, 1.1 + 0.24 * len(rows)), layout="constrained")
        ax = figure.add_subplot()
        for at, row in enumerate(rows):
            colour = FAINT if row.after == row.before else _judged(row.after - row.before)
            ax.plot([row.before, row.after], [at, at], color=colour, linewidth=2.2, zorder=2)
            ax.plot(row.after, at, "o", color=colour, markersize=5.5, zorder=3)
            ax.plot(row.before, at, "o", color=INK, markerfacecolor="none", markersize=7, zorder=4)
        names = [f"{shortened(row.label, 30)}  ({row.count})" for row in rows]
        ax.set_yticks(range(len(rows)), names, fontsize=8.5, parse_math=False)
        ax.set_ylim(len(rows) - 0.4, -0.6)
        ax.grid(color=GRID)
        ax.set_axisbelow(True)
        ax.tick_params(axis="y", length=0)
        ax.spines["left"].set_visible(False)
        ax.set_xlabel(f"{measure} of each class (samples in brackets)", parse_math=False)
        row_legend(ax, _class_marks())
        return to_svg(figure)


def _judged(change: float) -> str:
    return WORSE if change < 0 else BETTER


def _class_marks() -> list[Line2D]:
    dot: dict[str, Any] = {"marker": "o", "linestyle": ""}
    return [
        Line2D([], [], **dot, color=INK, markerfacecolor="none", label="before"),
        Line2D([], [], **dot, color=WORSE, label="after, worse"),
        Line2D([], [], **dot, color=BETTER, label="after, better"),
        Line2D([], [], **dot, color=FAINT, label="after, equal"),
    ]
