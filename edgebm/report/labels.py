"""Names beside the points of a picture, none over another."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.text import Annotation
from matplotlib.transforms import Bbox

from edgebm.report.svg import FAINT

Side = Literal["left", "center", "right"]
End = Literal["bottom", "center", "top"]
Place = tuple[int, int, Side, End]
# Offsets of a name from its mark in points, the best first; from the far ones a line is drawn.
_NEAR: tuple[Place, ...] = (
    (9, 0, "left", "center"),
    (5, 7, "left", "bottom"),
    (5, -7, "left", "top"),
    (0, 9, "center", "bottom"),
    (0, -9, "center", "top"),
    (-5, 7, "right", "bottom"),
    (-5, -7, "right", "top"),
    (-9, 0, "right", "center"),
)
_SIDES: tuple[tuple[int, Side], ...] = ((12, "left"), (0, "center"), (-12, "right"))
_ENDS: tuple[tuple[int, End], ...] = ((1, "bottom"), (-1, "top"))
_FAR: tuple[Place, ...] = tuple(
    (x, far * y, side, end) for far in (18, 32, 46) for x, side in _SIDES for y, end in _ENDS
)
_PLACES = _NEAR + _FAR


@dataclass(frozen=True, slots=True)
class Point:
    """A mark at `x`, `y` in data coordinates and the name it should get."""

    x: float
    y: float
    label: str
    chosen: bool


def label_points(figure: Figure, ax: Axes, points: Sequence[Point]) -> None:
    """Names the points, the chosen one first; each where it covers no mark and no other name.

    A point for which there is no place goes without: the table below the picture has it.
    """
    figure.draw_without_rendering()
    centres = [ax.transData.transform((p.x, p.y)) for p in points]
    taken = [Bbox.from_bounds(x - 7, y - 7, 14, 14) for x, y in centres]
    for point in sorted(points, key=lambda p: not p.chosen):
        weight = "bold" if point.chosen else "normal"
        text = ax.annotate(
            point.label,
            (point.x, point.y),
            (0, 0),
            textcoords="offset points",
            fontsize=9,
            fontweight=weight,
            parse_math=False,
            zorder=5,
        )
        place = _place(text, ax.get_window_extent(), taken)
        if place is None:
            text.remove()
            continue
        taken.append(text.get_window_extent())
        if max(map(abs, place)) > 14:
            line = {"arrowstyle": "-", "color": FAINT, "linewidth": 0.7, "shrinkB": 4}
            end = (place[0] * 0.9, place[1] * 0.9)
            at = (point.x, point.y)
            ax.annotate("", at, end, textcoords="offset points", arrowprops=line, zorder=3)


def _place(text: Annotation, frame: Bbox, taken: Sequence[Bbox]) -> tuple[int, int] | None:
    """Moves `text` to the first free place within `frame`; its offset in points, None if none."""
    for dx, dy, horizontal, vertical in _PLACES:
        text.set_position((dx, dy))
        text.set_horizontalalignment(horizontal)
        text.set_verticalalignment(vertical)
        box = text.get_window_extent()
        inside = frame.x0 <= box.x0 and box.x1 <= frame.x1 and frame.y0 <= box.y0 <= box.y1
        if inside and box.y1 <= frame.y1 and not any(box.overlaps(other) for other in taken):
            return dx, dy
    return None
