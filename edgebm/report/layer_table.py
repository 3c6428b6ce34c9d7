"""The most harmful layers in a terminal."""

from __future__ import annotations

from typing import Literal

from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Table
from rich.text import Text

from edgebm.report.blame import (
    Analysis,
    Blamed,
    blamed,
    clipped_text,
    db_text,
    gain_text,
    percent,
    shortened,
    span,
    spread_text,
    time_text,
)
from edgebm.report.findings import findings
from edgebm.report.rows import NONE

TOP = 10
_NAME, _OTHERS, _WIDE = 44, 84, 100  # a name, the rest of a line, and a line with all columns
_COLUMNS = (
    *("layer", "op", "noise", "alone", "in float", "own", "input range", "cut off", "spread"),
    "us",
)
_EXTRA = frozenset({"op", "own", "spread"})


def print_analysis(analysis: Analysis, top: int, console: Console) -> None:
    """The `top` most harmful layers, and what follows from their figures."""
    print_layers(analysis, top, console)
    for sentence in findings(analysis):
        console.print(Text(sentence), soft_wrap=True)


def print_layers(analysis: Analysis, top: int, console: Console) -> None:
    """The `top` most harmful layers, one line each, and what the columns mean."""
    layers = blamed(analysis)
    if not layers:
        return
    columns = [column for column in _COLUMNS if console.width >= _WIDE or column not in _EXTRA]
    if not any(time_text(each.layer) for each in layers):
        columns.remove("us")
    table = Table(header_style="bold", title_justify="left", box=SIMPLE_HEAD, pad_edge=False)
    table.title = Text(_title(len(layers), top), style="bold")
    for column in columns:
        left = column in {"layer", "op", "input range"}
        justify: Literal["left", "right"] = "left" if left else "right"
        table.add_column(Text(column), justify=justify, overflow="fold")
    # Names are what people copy, so the other columns give way first, as far as they can.
    others = _OTHERS if console.width >= _WIDE else _OTHERS - 34
    widest = max(len(each.name) for each in layers[:top])
    table.columns[0].min_width = max(8, min(widest, _NAME, console.width - others))
    for each in layers[:top]:
        row = _row(each)
        table.add_row(*(Text(row[column]) for column in columns))
    console.print(table)
    console.print(
        Text(
            "noise: share of all layers' at the worst output; alone: SQNR with only this layer on "
            "integers; in float: gained with only it in float; own: SQNR of its output; spread: "
            "largest weight channel over the median.",
            style="dim",
        )
    )


def _title(count: int, top: int) -> str:
    if count <= top:
        return f"{count} layer{'s' * (count != 1)} on integers, the most harmful first"
    return f"the {top} most harmful of {count} layers on integers"


def _row(each: Blamed) -> dict[str, str]:
    layer = each.layer
    activation, own = layer["activation"], layer["local_db"]
    cells = (
        shortened(each.name, _NAME),
        each.op,
        percent(each.share),
        db_text(layer["alone_db"]),
        gain_text(each),
        NONE if own is None else db_text(own),
        NONE if activation is None else span(activation["low"], activation["high"]),
        clipped_text(activation),
        spread_text(layer["weight"]),
        time_text(layer),
    )
    return dict(zip(_COLUMNS, cells, strict=True))
