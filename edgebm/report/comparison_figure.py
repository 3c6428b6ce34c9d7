"""All candidates of two bundles in one picture, as inline SVG."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from edgebm.report.blame import shortened
from edgebm.report.figures import latency_axis, metric_axis
from edgebm.report.labels import Point, label_points
from edgebm.report.rows import Report, is_float, runtime_name, timed_on
from edgebm.report.svg import FAINT, INK, row_legend, style, to_svg

COLOURS = ("#2563a8", "#c2570c")


def why_no_picture(first: Report, second: Report) -> str:
    """Why the candidates of the two cannot share a picture; "" if they can."""
    if timed_on(first)["cpu"] != timed_on(second)["cpu"]:
        return "they were timed on different processors"
    keys = ("name", "unit", "higher_is_better")
    if any(first["metric"][key] != second["metric"][key] for key in keys):
        return "their metrics differ"
    if not all(_rated(report) for report in (first, second)):
        return "one of them was not timed"
    return ""


def comparison_svg(first: Report, second: Report, names: Sequence[str]) -> str:
    """Accuracy against p50 latency of every candidate with both; "" if they cannot be compared.

    Colour is the bundle, a hollow mark a float model, a ring the choice; an arrow leads from
    the first's choice to the second's.
    """
    if why_no_picture(first, second):
        return ""
    groups = [_rated(report) for report in (first, second)]
    both = [*groups[0], *groups[1]]
    with style("comparison"):
        figure = Figure(figsize=(9.6, 4.6))
        ax = figure.add_subplot()
        latency_axis([ax], both)
        # Each bundle had a limit of its own.
        metric_axis(ax, {**second, "constraints": {}}, both)
        points = []
        for report, group, colour in zip((first, second), groups, COLOURS, strict=True):
            points += [_mark(ax, each, colour, report["after"]["candidate"]) for each in group]
        _arrow(ax, first["after"], second["after"])
        label_points(figure, ax, points)
        row_legend(ax, _marks(names))
        return to_svg(figure)


def _rated(report: Report) -> list[Mapping[str, Any]]:
    return [c for c in report["candidates"] if c["p50_ms"] and c["metric"] is not None]


def _mark(ax: Axes, candidate: Mapping[str, Any], colour: str, chosen: str) -> Point:
    x, y = float(candidate["p50_ms"]), float(candidate["metric"])
    face = "white" if is_float(candidate) else colour
    ax.plot(x, y, "o", color=colour, markerfacecolor=face, markersize=7.5, zorder=4)
    is_chosen = candidate["id"] == chosen
    if is_chosen:
        ax.plot(x, y, "o", color=INK, markerfacecolor="none", markersize=14, zorder=4)
    threads = f" t{candidate['threads']}" if candidate["threads"] else ""
    label = f"{runtime_name(str(candidate['runtime']))} {candidate['precision']}{threads}"
    return Point(x, y, label, is_chosen)


def _arrow(ax: Axes, before: Mapping[str, Any], after: Mapping[str, Any]) -> None:
    ends = [(side["p50_ms"], side["metric"]) for side in (before, after)]
    if ends[0] != ends[1] and all(x and y is not None for x, y in ends):
        look = {"arrowstyle": "->", "color": FAINT, "shrinkA": 9, "shrinkB": 9, "lw": 1.3}
        ax.annotate("", ends[1], ends[0], arrowprops=look, zorder=3)


def _marks(names: Sequence[str]) -> list[Line2D]:
    dot: dict[str, Any] = {"marker": "o", "linestyle": ""}
    return [
        *(
            # A dollar sign would begin mathematics, and a first underscore hide the entry.
            Line2D(
                [],
                [],
                **dot,
                color=colour,
                label=f"{which}: {shortened(name, 24)}".replace("$", r"\$"),
            )
            for which, name, colour in zip(("first", "second"), names, COLOURS, strict=True)
        ),
        Line2D([], [], **dot, color=INK, markerfacecolor="white", label="hollow: float"),
        Line2D(
            [], [], **dot, color=INK, markerfacecolor="none", markersize=11, label="ring: chosen"
        ),
    ]
