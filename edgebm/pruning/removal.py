"""Which positions of every axis stay when some units go."""

from __future__ import annotations

import difflib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray

from edgebm.errors import UsageError
from edgebm.ir.edit import const, name
from edgebm.ir.model import Model
from edgebm.pruning.group import Group
from edgebm.pruning.grouping import Traced, trace_groups
from edgebm.pruning.trace import Trace

Kept = NDArray[np.bool_]
Removed = Mapping[str, NDArray[Any]]


@dataclass(frozen=True, slots=True)
class Removal:
    """A traced graph and the labels that go."""

    trace: Trace
    dead: Kept

    def kept(self, value: ir.Value, axis: int) -> Kept | None:
        """Which labels along an axis stay [n]; None where all do."""
        if (value, axis) not in self.trace.axes:
            return None
        kept = ~self.dead[self.trace.roots((value, axis))]
        return None if kept.all() else kept

    def narrowed(self) -> Iterator[tuple[ir.Value, dict[int, Kept]]]:
        """Every value that loses positions, with what stays by axis."""
        found: dict[ir.Value, dict[int, Kept]] = {}
        for value, axis in self.trace.axes:
            if (kept := self.kept(value, axis)) is not None:
                found.setdefault(value, {})[axis] = kept
        yield from found.items()


def check_removed(model: Model, removed: Removed) -> Removal:
    """What goes, after all faults of `removed` were looked for.

    Raises:
        UsageError: groups that do not exist (with the nearest names), numbers that are no units
            of their group, groups or values that nothing would be left of; all of them.
    """
    traced = trace_groups(model)
    by_name = {group.name: number for number, group in enumerate(traced.groups)}
    faults = []
    for label, units in removed.items():
        if label not in by_name:
            faults.append(_unknown(label, list(by_name)))
        else:
            faults += _unit_faults(traced.groups[by_name[label]], np.asarray(units))
    if not faults:
        removal = _removal(traced, removed, by_name)
        faults += list(_emptied(removal))
    if faults:
        raise UsageError(
            f"these units cannot be cut: {'; '.join(faults)}",
            hint="find_groups(model) lists the groups and how many units each has",
            details={"faults": faults},
        )
    return removal


def _unknown(label: str, known: list[str]) -> str:
    near = difflib.get_close_matches(label, known, n=3, cutoff=0.4) or known[:3]
    if not near:
        return f"no group is named '{label}': the model has none"
    return f"no group is named '{label}' (nearest: {', '.join(near)})"


def _unit_faults(group: Group, units: NDArray[Any]) -> Iterator[str]:
    if units.ndim != 1 or (units.size and units.dtype.kind not in "iu"):
        yield f"'{group.name}' needs a list of unit numbers, not {units.dtype} {units.shape}"
        return
    outside = units[(units < 0) | (units >= group.units)]
    if outside.size:
        yield (
            f"'{group.name}' has units 0 to {group.units - 1}, not "
            f"{', '.join(map(str, outside[:5].tolist()))}"
        )
    elif np.unique(units).size != units.size:
        yield f"units of '{group.name}' are named twice"
    elif units.size == group.units:
        yield f"nothing would be left of '{group.name}': keep at least one of its units"


def _removal(traced: Traced, removed: Removed, by_name: Mapping[str, int]) -> Removal:
    dead = np.zeros(len(traced.trace.labels), np.bool_)
    for label, units in removed.items():
        dead[traced.roots[by_name[label]][np.asarray(units, np.int64)]] = True
    return Removal(traced.trace, dead)


def _emptied(removal: Removal) -> Iterator[str]:
    """Values whose every position on an axis would go, each group keeping some elsewhere."""
    for value, axes in removal.narrowed():
        if const(value) is None and not all(kept.any() for kept in axes.values()):
            yield f"nothing would be left of the value '{name(value)}'"
