"""The pictures of a report as inline SVG, drawn by matplotlib."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import FuncFormatter, MaxNLocator

from edgebm.report.labels import Point, label_points
from edgebm.report.rows import Report, floor_value, is_float, metric_label, runtime_name
from edgebm.report.svg import FAINT, GRID, INK, row_legend, style, to_svg

RUNTIME_COLOURS = {
    "openvino": "#2563a8",
    "onnxruntime": "#c2570c",
    "tensorrt": "#4d7c0f",
    "onnxruntime-cuda": "#0f766e",
}
PRECISION_COLOURS = {"int8": "#2563a8", "float": "#9aa5b1"}
REPAIR_COLOUR = "#1a7f4b"
MAX_LAYERS = 40


def candidates_svg(report: Report) -> str:
    """Accuracy against p50 latency of every candidate that was timed; "" if none was.

    Candidates whose accuracy nobody had to know (a faster one had passed) stand in a strip
    below the axis. Colour is the runtime, a hollow mark a float model, a ring the choice.
    """
    timed = [c for c in report["candidates"] if c["p50_ms"]]
    if not timed:
        return ""
    known = [c for c in timed if c["metric"] is not None]
    unknown = [c for c in timed if c["metric"] is None]
    with style("candidates"):
        figure = Figure(figsize=(9.6, 4.6 + 0.9 * bool(unknown) * bool(known)))
        upper, lower = _split(figure, upper=bool(known), lower=bool(unknown))
        axes = [ax for ax in (upper, lower) if ax is not None]
        latency_axis(axes, timed)
        if upper is not None:
            metric_axis(upper, report, known)
        for ax, group in ((upper, known), (lower, unknown)):
            if ax is not None:
                _scatter(figure, ax, report, group)
        repaired = upper is not None and _repair_arrow(upper, report)
        _legend(axes[0], timed, repaired=repaired)
        return to_svg(figure)


def layers_svg(report: Report) -> str:
    """SQNR in dB of each layer against its float self; "" if none was measured.

    Of more than MAX_LAYERS layers the worst are shown, in the order of the graph.
    """
    rated = sorted(report["layers"], key=_by_sqnr)[:MAX_LAYERS]
    if not rated or rated[0]["sqnr_db"] is None:
        return ""
    shown = set(map(id, rated))
    layers = [layer for layer in report["layers"] if id(layer) in shown]
    with style("layers"):
        figure = Figure(figsize=(9.6, 1.2 + 0.235 * len(layers)), layout="constrained")
        ax = figure.add_subplot()
        _bars(ax, layers)
        names = [_shortened(str(layer["name"]), 38) for layer in layers]
        ax.set_yticks(range(len(layers)), names, fontsize=8.5, parse_math=False)
        ax.set_ylim(len(layers) - 0.4, -0.6)
        ax.set_xlabel("SQNR against the float layer, dB (more is better)")
        ax.grid(axis="x", color=GRID)
        ax.set_axisbelow(True)
        ax.tick_params(axis="y", length=0)
        ax.spines["left"].set_visible(False)
        return to_svg(figure)


def _by_sqnr(layer: Mapping[str, Any]) -> float:
    return float("inf") if layer["sqnr_db"] is None else float(layer["sqnr_db"])


def _bars(ax: Axes, layers: Sequence[Mapping[str, Any]]) -> None:
    values = [float(layer["sqnr_db"] or 0.0) for layer in layers]
    colours = [_precision_colour(str(layer["precision"])) for layer in layers]
    ax.barh(range(len(layers)), values, height=0.68, color=colours)
    gap = 0.008 * (max(*values, 1.0) - min(*values, 0.0))
    for row, (layer, value) in enumerate(zip(layers, values, strict=True)):
        measured = layer["sqnr_db"] is not None
        text = f"{value:.1f}" if measured else str(layer["precision"])
        colour = INK if measured else FAINT
        ax.text(max(value, 0) + gap, row, text, va="center", fontsize=8.5, color=colour)
    used = dict.fromkeys(str(layer["precision"]) for layer in layers)
    marks = [
        Line2D([], [], marker="s", linestyle="", color=_precision_colour(name), label=name)
        for name in used
    ]
    row_legend(ax, marks)


def _split(figure: Figure, *, upper: bool, lower: bool) -> tuple[Axes | None, Axes | None]:
    if upper and lower:
        top, bottom = figure.subplots(
            2, 1, sharex=True, gridspec_kw={"height_ratios": [3.6, 1], "hspace": 0.08}
        )
        return top, bottom
    only = figure.add_subplot()
    return (only, None) if upper else (None, only)


def latency_axis(axes: Sequence[Axes], timed: Sequence[Mapping[str, Any]]) -> None:
    """Scale and label of the axis of p50 latencies that `axes` share."""
    values = [float(c["p50_ms"]) for c in timed]
    low, high = min(values), max(values)
    for ax in axes:
        ax.grid(color=GRID)
        ax.set_axisbelow(True)
    last = axes[-1]
    if high / low > 6:
        last.set_xscale("log")
        last.set_xlim(low / 1.3, high * 1.5)
        last.xaxis.set_minor_formatter(FuncFormatter(lambda x, _: ""))
        last.xaxis.set_major_formatter(FuncFormatter(lambda x, _: f"{x:g}"))
    else:
        margin = max(high - low, 0.2 * high)
        last.set_xlim(max(0.0, low - 0.12 * margin), high + 0.22 * margin)
    last.set_xlabel("latency, p50, ms (less is better)")


def metric_axis(ax: Axes, report: Report, known: Sequence[Mapping[str, Any]]) -> None:
    """Scale and label of the axis of the metric, and the limit on it, if there is one."""
    metric = report["metric"]
    values = [float(c["metric"]) for c in known]
    floor = floor_value(report)
    values += [] if floor is None else [floor]
    # A hundredth of a point must not look like a cliff.
    least = 2.0 if metric["unit"] in {"points", "dB"} else 0.05 * max(map(abs, values))
    missing = max(0.0, least - (max(values) - min(values))) / 2
    pad = 0.18 * max(max(values) - min(values), least)
    ax.set_ylim(min(values) - missing - pad, max(values) + missing + pad)
    ax.yaxis.set_major_locator(MaxNLocator(6, steps=[1, 2, 5, 10]))
    better = "more" if metric["higher_is_better"] else "less"
    unit = f", {metric['unit']}" if metric["unit"] else ""
    ax.set_ylabel(f"{metric_label(metric)}{unit} ({better} is better)", parse_math=False)
    if floor is not None:
        ax.axhline(floor, color="#b42318", linestyle=(0, (4, 3)), linewidth=1.1)
        ax.annotate(
            f"limit {floor:.2f}",
            (1, floor),
            xycoords=("axes fraction", "data"),
            xytext=(-4, -4),
            textcoords="offset points",
            ha="right",
            va="top",
            color="#b42318",
            fontsize=9,
        )


def _scatter(figure: Figure, ax: Axes, report: Report, group: Sequence[Mapping[str, Any]]) -> None:
    chosen = report["after"]["candidate"]
    points = []
    if not any(c["metric"] is not None for c in group):
        ax.set_yticks([])
        ax.set_ylim(-1, 1)
        ax.set_ylabel("accuracy\nnot\nmeasured", rotation=0, ha="right", va="center", fontsize=9)
        ax.yaxis.set_label_coords(-0.012, 0.5)
        ax.grid(visible=False, axis="y")
    for candidate in group:
        x, y = float(candidate["p50_ms"]), float(candidate["metric"] or 0.0)
        colour = RUNTIME_COLOURS.get(str(candidate["runtime"]), FAINT)
        face = "white" if is_float(candidate) else colour
        ax.plot(x, y, "o", color=colour, markerfacecolor=face, markersize=7.5, zorder=4)
        if candidate["id"] == chosen:
            ax.plot(x, y, "o", color=INK, markerfacecolor="none", markersize=14, zorder=4)
        threads = f" t{candidate['threads']}" if candidate["threads"] else ""
        label = f"{candidate['precision']}{threads}"
        points.append(Point(x, y, label, candidate["id"] == chosen))
    label_points(figure, ax, points)


def _repair_arrow(ax: Axes, report: Report) -> bool:
    """From plain INT8 to the repaired candidate; False where one of them is not in the picture."""
    repair = (report.get("analysis") or {}).get("repair")
    if not repair or not repair["lifted"]:
        return False
    ends = [(repair[side]["p50_ms"], repair[side]["value"]) for side in ("before", "after")]
    (left, right), (low, high) = ax.get_xlim(), ax.get_ylim()
    if not all(x and y is not None and left <= x <= right and low <= y <= high for x, y in ends):
        return False
    arrow = {"arrowstyle": "->", "color": REPAIR_COLOUR, "shrinkA": 6, "shrinkB": 9, "lw": 1.4}
    ax.annotate("", ends[1], ends[0], arrowprops=arrow, zorder=3)
    return True


def _legend(ax: Axes, timed: Sequence[Mapping[str, Any]], *, repaired: bool) -> None:
    marks = []
    for runtime in sorted({str(c["runtime"]) for c in timed}):
        colour = RUNTIME_COLOURS.get(runtime, FAINT)
        label = runtime_name(runtime)
        marks.append(Line2D([], [], marker="o", linestyle="", color=colour, label=label))
    ring: dict[str, Any] = {"marker": "o", "linestyle": "", "color": INK}
    marks.append(Line2D([], [], **ring, markerfacecolor="white", label="hollow: float"))
    label = "ring: chosen"
    marks.append(Line2D([], [], **ring, markerfacecolor="none", markersize=11, label=label))
    if repaired:
        marks.append(Line2D([], [], color=REPAIR_COLOUR, linewidth=1.4, label="arrow: repair"))
    row_legend(ax, marks)


def _precision_colour(precision: str) -> str:
    return PRECISION_COLOURS.get(precision, "#6d5bd0")


def _shortened(name: str, width: int) -> str:
    # The end of a path-like name says more than its middle.
    return name if len(name) <= width else f"{name[: width // 3]}…{name[-(width * 2 // 3) :]}"
