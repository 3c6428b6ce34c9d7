"""The picture of the ranking: what each layer costs, and what leaving it in float would buy."""

from __future__ import annotations

from collections.abc import Sequence

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import MaxNLocator

from edgebm.report.blame import Analysis, Blamed, blamed, db_text, gain_text, percent, shortened
from edgebm.report.svg import FAINT, GRID, row_legend, style, to_svg

MAX_RANKED = 30
NOISE, GAIN, LOSS, LIFTED = "#2563a8", "#1a7f4b", "#c2570c", "#a5b8cc"


def ranking_svg(analysis: Analysis) -> str:
    """Noise that each layer makes alone, and what leaving it in float gains; "" without layers.

    Of more than MAX_RANKED layers the most harmful are shown.
    """
    layers = blamed(analysis)[:MAX_RANKED]
    if not layers:
        return ""
    with style("ranking"):
        height = 1.0 + 0.25 * len(layers)
        figure = Figure(figsize=(9.6, height), layout="constrained")
        left, right = figure.subplots(1, 2, sharey=True, gridspec_kw={"width_ratios": [1.25, 1]})
        _shares(left, layers)
        _gains(right, layers)
        names = [f"{shortened(x.name, 34)} · {shortened(x.op, 18)}" for x in layers]
        left.set_yticks(range(len(layers)), names, fontsize=8.5, parse_math=False)
        left.set_ylim(len(layers) - 0.4, -0.6)
        for ax in (left, right):
            ax.grid(axis="x", color=GRID)
            ax.set_axisbelow(True)
            ax.tick_params(axis="y", length=0)
            ax.spines["left"].set_visible(False)
        return to_svg(figure)


def _shares(ax: Axes, layers: Sequence[Blamed]) -> None:
    values = [100 * each.share for each in layers]
    colours = [LIFTED if each.layer["lifted"] else NOISE for each in layers]
    ax.barh(range(len(layers)), values, height=0.68, color=colours)
    reach = max(*values, 1e-6)
    for row, (each, value) in enumerate(zip(layers, values, strict=True)):
        text = f"{percent(each.share)} · {db_text(each.layer['alone_db'])}"
        ax.text(value + 0.012 * reach, row, text, va="center", fontsize=8.5)
    ax.set_xlim(0, 1.42 * reach)
    ax.set_xticks([x for x in MaxNLocator(5).tick_values(0, reach) if x <= min(100, 1.3 * reach)])
    ax.set_xlabel("noise made alone, % · SQNR left", fontsize=9.5)
    if any(each.layer["lifted"] for each in layers):
        marks = [_square(NOISE, "on integers"), _square(LIFTED, "lifted to float")]
        row_legend(ax, marks)


def _gains(ax: Axes, layers: Sequence[Blamed]) -> None:
    known = [each.gain_db for each in layers if each.gain_db is not None]
    # A layer without which nothing is lost gets the longest bar.
    top = max(*known, 0.5, 0.5) * (1.0 if len(known) == len(layers) else 1.3)
    values = [top if each.gain_db is None else each.gain_db for each in layers]
    colours = [GAIN if value >= 0 else LOSS for value in values]
    ax.barh(range(len(layers)), values, height=0.68, color=colours)
    low = min(*values, 0.0, 0.0)
    gap = 0.02 * (top - low)
    for row, (each, value) in enumerate(zip(layers, values, strict=True)):
        ax.text(max(value, 0) + gap, row, gain_text(each), va="center", fontsize=8.5)
    ax.set_xlim(low - gap, top + 0.35 * (top - low))
    ax.axvline(0, color=FAINT, linewidth=0.8)
    ax.set_xlabel("gain when left in float, dB", fontsize=9.5)


def _square(colour: str, label: str) -> Line2D:
    return Line2D([], [], marker="s", linestyle="", color=colour, label=label)
