"""Histograms small enough to stand in a row of a table, as SVG written by hand.

A picture of matplotlib takes fifty times the bytes, and a page may hold hundreds of these.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from html import escape
from math import log1p
from typing import Any

_WIDTH, _HEIGHT, _FOOT = 150, 34, 5


def histogram_svg(
    histogram: Mapping[str, Any], covered: tuple[float, float] | None, title: str
) -> str:
    """Bars over [low, high] of `histogram`, heights on a log scale so that rare values show.

    Args:
        histogram: `low`, `high` and `counts`.
        covered: the calibrated range; it is marked below, and what lies outside is red.
        title: what it shows, for the mouse and for screen readers; any text.
    """
    low, high = float(histogram["low"]), float(histogram["high"])
    counts = [int(count) for count in histogram["counts"]]
    scale = _WIDTH / (high - low) if high > low else 0.0
    ends = (low, high) if covered is None else (min(covered[0], 0.0), max(covered[1], 0.0))
    step = (high - low) / max(len(counts), 1)
    inside = [ends[0] <= low + (i + 0.5) * step <= ends[1] for i in range(len(counts))]
    kept = [count if within else 0 for count, within in zip(counts, inside, strict=True)]
    cut = [0 if within else count for count, within in zip(counts, inside, strict=True)]
    peak = max(counts, default=0)
    parts = [f'<path class="in" d="{_bars(kept, peak)}"/>']
    if any(cut):
        parts.append(f'<path class="cut" d="{_bars(cut, peak)}"/>')
    left, right = ((min(max(end, low), high) - low) * scale for end in ends)
    parts.append(_ruler(left, right, marked=covered is not None))
    text = escape(title)
    return (
        f'<svg class="mini" viewBox="0 0 {_WIDTH} {_HEIGHT + _FOOT}" role="img" '
        f'aria-label="{text}"><title>{text}</title>{"".join(parts)}</svg>'
    )


def _bars(counts: Sequence[int], peak: int) -> str:
    """A path of one box for each run of equal heights; nothing where there is no value."""
    width, path = _WIDTH / max(len(counts), 1), []
    heights = [_tenths(count, peak) for count in counts]
    start = 0
    for end in range(1, len(heights) + 1):
        if end < len(heights) and heights[end] == heights[start]:
            continue
        if heights[start]:
            x, wide = start * width, (end - start) * width
            path.append(f"M{x:.4g} {_HEIGHT}v-{heights[start]:g}h{wide:.4g}V{_HEIGHT}z")
        start = end
    return "".join(path)


def _tenths(count: int, peak: int) -> float:
    """The height of a bar; a single value is still seen."""
    if count <= 0:
        return 0.0
    return round(1.5 + (_HEIGHT - 3.5) * log1p(count) / log1p(peak), 1)


def _ruler(left: float, right: float, *, marked: bool) -> str:
    y = _HEIGHT + 1.5
    line = f'<path class="base" d="M0 {y}H{_WIDTH}"/>'
    if not marked:
        return line
    left, right = max(left, 0.75), min(max(right, left + 1.5), _WIDTH - 0.75)
    ends = f"M{left:.4g} {y - 3}v6M{right:.4g} {y - 3}v6M{left:.4g} {y}H{right:.4g}"
    return f'{line}<path class="span" d="{ends}"/>'
