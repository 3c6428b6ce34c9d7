"""One look for all pictures, and matplotlib's SVG made fit to stand in a page.

Equal figures give equal text: ids are salted with a constant and carry no date. Text stays
text, so that the page's own font is used and a reader can search for it.
"""

from __future__ import annotations

import io
import re
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from matplotlib import rc_context
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

INK, FAINT, GRID = "#1f2933", "#7b8794", "#e4e7eb"

_STYLE: Any = {
    "svg.fonttype": "none",
    "font.family": "DejaVu Sans",
    "font.size": 10,
    "text.color": INK,
    "axes.edgecolor": FAINT,
    "axes.labelcolor": INK,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "xtick.color": FAINT,
    "ytick.color": FAINT,
    "xtick.labelcolor": INK,
    "ytick.labelcolor": INK,
}


@contextmanager
def style(salt: str) -> Iterator[None]:
    """The look, while a figure is drawn and written; `salt` keeps the ids of two apart."""
    with rc_context(_STYLE | {"svg.hashsalt": f"edgebm {salt}"}), warnings.catch_warnings():
        # Names may hold letters that matplotlib's font lacks; the browser's font has them.
        warnings.filterwarnings("ignore", message="Glyph .* missing from")
        yield


def row_legend(ax: Axes, marks: Sequence[Line2D]) -> None:
    """A legend in one line above `ax`."""
    ax.legend(
        handles=marks,
        loc="lower left",
        bbox_to_anchor=(0, 1.0),
        ncols=len(marks),
        frameon=False,
        fontsize=9,
        borderaxespad=0.3,
        handletextpad=0.2,
    )


def to_svg(figure: Figure) -> str:
    """An `<svg>` element to stand in HTML; names in it are escaped."""
    buffer = io.BytesIO()
    figure.savefig(buffer, format="svg", metadata={"Date": None}, bbox_inches="tight")
    text = buffer.getvalue().decode()
    text = text[text.index("<svg") :]
    text = re.sub(r"<!--.*?-->|<metadata>.*?</metadata>", "", text, flags=re.DOTALL)
    # Group ids repeat from picture to picture on one page; nothing refers to them.
    text = re.sub(r' id="[a-zA-Z]\w*_\d+"', "", text)
    text = text.replace("'DejaVu Sans'", "system-ui, sans-serif").replace(
        "DejaVu Sans", "system-ui, sans-serif"
    )
    return re.sub(r"\n\s*\n", "\n", text).strip()
