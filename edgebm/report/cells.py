"""The recurrent layers of a report: what each runs in, and what other tools would have done."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from edgebm.report.peers import what_peers_do
from edgebm.report.rows import NONE, Report


@dataclass(frozen=True, slots=True)
class CellRow:
    """One recurrent layer as text. `kept` is False where it does not run in what was meant."""

    name: str
    kind: str
    size: str
    runs_in: str
    why: str
    kept: bool


@dataclass(frozen=True, slots=True)
class Peers:
    """What other tools do, one sentence each, with the layers `names`."""

    names: tuple[str, ...]
    sentences: tuple[str, ...]


def cell_rows(report: Report) -> list[CellRow]:
    """A row for each recurrent layer of the chosen candidate; none in reports without any."""
    return [_row(cell) for cell in report.get("cells", [])]


def peers(report: Report) -> list[Peers]:
    """What other tools would have done, layers that would fare alike together."""
    groups: dict[tuple[str, ...], list[str]] = {}
    for cell in report.get("cells", []):
        sentences = what_peers_do(
            cell["op"],
            resets_after=cell["resets_after"],
            direction=cell["direction"],
            initial_state_is_constant=cell["constant_state"],
        )
        groups.setdefault(sentences, []).append(str(cell["name"]))
    return [Peers(tuple(names), sentences) for sentences, names in groups.items()]


def _row(cell: Mapping[str, Any]) -> CellRow:
    ran, meant = cell["ran"], cell["meant"]
    kept = ran is None or (ran == "int8") == (meant == "int8")
    runs_in = NONE if ran is None else str(ran)
    if not kept:
        runs_in += f", meant to be {meant}"
    way = "" if cell["direction"] == "forward" else f", {cell['direction']}"
    size = f"{cell['inputs']} to {cell['hidden']}"
    return CellRow(str(cell["name"]), f"{cell['op']}{way}", size, runs_in, str(cell["why"]), kept)
