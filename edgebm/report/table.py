"""The report in a terminal."""

from __future__ import annotations

from collections.abc import Sequence

from rich.console import Console
from rich.table import Table
from rich.text import Text

from edgebm.report.cells import cell_rows, peers
from edgebm.report.classes import class_sentences
from edgebm.report.pruning import cut_rows
from edgebm.report.rows import (
    Report,
    Row,
    candidate_name,
    comparison_rows,
    metric_label,
    metric_text,
    ms,
    per_target,
    size,
    summary_rows,
)
from edgebm.report.states import state_sentences

_COLOURS = {True: "green", False: "red", None: "default"}
_STATUS = {"chosen": "bold green", "inaccurate": "red", "failed": "red"}


def stdout_console() -> Console:
    """Where results go. In a pipe or file, lines may be 110 columns long."""
    console = Console()
    return console if console.is_terminal else Console(width=110)


def print_summary(report: Report, console: Console) -> None:
    """Before, after and ratio and the verdict for each target; each limit that was missed."""
    for each in per_target(report):
        _print_target(each, console)
    for sentence in report["missed"]:
        console.print(Text(f"missed: {sentence}", style="bold red"), soft_wrap=True)


def _print_target(report: Report, console: Console) -> None:
    title = Text(f"{report['name']} on {report['target']}", style="bold")
    table = _table(title, ("", "before", "after", "change"))
    before, after = report["before"], report["after"]
    table.add_row("runs on", _wrapped(candidate_name(before)), _wrapped(candidate_name(after)), "")
    _add(table, summary_rows(report))
    console.print(table)
    console.print(Text(str(report["verdict"])), soft_wrap=True)
    for gate in report.get("gates") or []:
        console.print(Text(f"gate passed: {gate['sentence']}"), soft_wrap=True)
    if classes := " ".join(class_sentences(report)):
        console.print(Text(classes), soft_wrap=True)


def print_candidates(report: Report, console: Console) -> None:
    """Every candidate that was built, the fastest first, for each target."""
    for each in per_target(report):
        _print_candidates(each, console)


def _print_candidates(report: Report, console: Console) -> None:
    unit = str(report["metric"]["unit"])
    table = _table(
        Text(f"candidates for {report['target']}", style="bold"),
        ("candidate", "p50", metric_label(report["metric"]), "size", "", "why"),
    )
    slowest = float("inf")
    for candidate in sorted(report["candidates"], key=lambda c: c["p50_ms"] or slowest):
        status = str(candidate["status"])
        table.add_row(
            Text(candidate_name(candidate)),
            ms(candidate["p50_ms"]),
            metric_text(candidate["metric"], unit),
            size(candidate["size_bytes"]),
            Text(status.replace("_", " "), style=_STATUS.get(status, "default")),
            Text(str(candidate["why"])),
        )
    console.print(table)


def print_cells(report: Report, console: Console) -> None:
    """What each recurrent layer runs in, what becomes of states, and what peers would do."""
    for each in per_target(report):
        rows = cell_rows(each)
        if not rows:
            continue
        title = Text(f"recurrent layers on {each['target']}", style="bold")
        table = _table(title, ("layer", "op", "units", "runs in", "why"))
        for row in rows:
            ran = Text(row.runs_in, style="default" if row.kept else "red")
            table.add_row(Text(row.name), Text(row.kind), Text(row.size), ran, Text(row.why))
        console.print(table)
    for sentence in state_sentences(report):
        console.print(Text(sentence), soft_wrap=True)
    for group in peers(report):
        console.print(Text(f"other tools, with {', '.join(group.names)}:"), soft_wrap=True)
        for sentence in group.sentences:
            console.print(Text(f"- {sentence}"), soft_wrap=True)


def print_cuts(report: Report, console: Console) -> None:
    """What was cut of the model, for each amount that was tried; nothing where nothing is cut."""
    for each in per_target(report):
        rows = cut_rows(each)
        if not rows:
            continue
        title = Text(f"cut for {each['target']}", style="bold")
        columns = ("amount", "parameters", "in float", "chosen", metric_label(each["metric"]), "")
        table = _table(title, columns)
        for row in rows:
            result = Text(row.result, style="bold green" if row.taken else "default")
            cells = (row.amount, row.parameters, row.in_float, row.speedup, row.metric)
            table.add_row(*map(Text, cells), result)
        console.print(table)


def print_comparison(
    first: Report, second: Report, names: Sequence[str], console: Console
) -> None:
    """Two bundles side by side; `names` are the headings of the two columns."""
    table = _table(Text("comparison", style="bold"), ("", *names, "change"))
    _add(table, comparison_rows(first, second))
    console.print(table)


def _table(title: Text, columns: Sequence[str]) -> Table:
    table = Table(title=title, title_justify="left", header_style="bold")
    for column in columns:
        table.add_column(Text(column), overflow="fold")
    return table


def _add(table: Table, rows: Sequence[Row]) -> None:
    for row in rows:
        change = Text(row.change, style=_COLOURS[row.better])
        table.add_row(Text(row.label), Text(row.before), Text(row.after), change)


def _wrapped(text: str) -> Text:
    return Text(text.replace(", ", "\n", 1))
