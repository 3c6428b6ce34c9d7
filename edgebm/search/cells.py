"""The recurrent layers of what was chosen: what each was meant to run in, and what it runs in."""

from __future__ import annotations

from typing import Any

from edgebm.ir.edit import const
from edgebm.ir.recurrent import Cell, X, cell_of
from edgebm.ir.traits import RECURRENT
from edgebm.search.found import Found


def cell_dicts(found: Found) -> list[dict[str, Any]]:
    """One entry of the report for each recurrent layer with constant weights.

    `meant` is "int8" or "float", `ran` the precision read back from the runtime: None where it
    was not asked, as for another processor than this one.
    """
    chosen = found.choice.chosen.candidate
    artifact, ran = chosen.artifact, found.cells.get(chosen.id, {})
    rows = []
    for node in artifact.lowered.nodes(*RECURRENT):
        cell, label = cell_of(node), node.name or "?"
        if cell is None:
            continue
        rows.append(
            {
                "name": label,
                "op": cell.op,
                "inputs": cell.inputs,
                "hidden": cell.hidden,
                "direction": cell.direction,
                "resets_after": cell.resets_after,
                "constant_state": _starts_constant(cell),
                "meant": "int8" if label in artifact.integer_nodes else "float",
                "ran": ran.get(label),
                "why": artifact.reasons.get(label, ""),
            }
        )
    return rows


def _starts_constant(cell: Cell) -> bool:
    """Whether the initial state is a constant: with a free batch axis not even zeros are one."""
    initial, x = cell.initial_h, cell.node.inputs[X]
    if initial is not None:
        return const(initial) is not None
    return x is not None and x.shape is not None and isinstance(x.shape[1], int)
