"""From labels to groups: units that lie in the same places are of one group."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import onnx_ir as ir

from edgebm.ir.edit import const
from edgebm.ir.model import Model
from edgebm.ir.traits import RECURRENT
from edgebm.pruning.follow import follow
from edgebm.pruning.group import Group, Index, Kind
from edgebm.pruning.places import Key, Places, places
from edgebm.pruning.trace import Axis, Trace
from edgebm.pruning.values import after_maker


@dataclass(frozen=True, slots=True)
class Traced:
    """The groups with the labels they come from.

    `roots` has one label for each unit of each group, `makers` the layers that make them.
    """

    trace: Trace
    groups: tuple[Group, ...]
    roots: tuple[Index, ...]
    makers: tuple[tuple[ir.Node, ...], ...]


@dataclass(frozen=True, slots=True)
class _Draft:
    """Units of one key: the group number, the first row of each unit, and who makes them."""

    key: Key
    starts: Index
    makers: tuple[ir.Node, ...]


def trace_groups(model: Model) -> Traced:
    """All groups of a model in the order of their first layers; nothing is ignored."""
    trace = follow(model)
    behind = {axis: after_maker(trace, node, axis) for node, axis in trace.made}
    taken = {axis for _, axis in trace.read_at}
    taken |= {(t.value, t.axis) for t in trace.taken if t.is_product}
    held = places(trace, {*behind.values(), *taken})
    drafts = _drafts(model, trace, held)
    names: set[str] = set()
    groups, roots = [], []
    for draft in drafts:
        own = held.root[draft.starts]
        order = _order(trace, draft.makers[0], own)
        found = held.of(draft.key, draft.starts[order])
        constants = [(axis, place) for axis, place in found if const(axis[0]) is not None]
        label = _unused(draft.makers[0].name or "?", names)
        groups.append(
            Group(
                name=label,
                kind=_kind(trace, draft.makers[0], own),
                units=len(own),
                writes=tuple(place for axis, place in constants if axis not in trace.reads),
                reads=tuple(place for axis, place in constants if axis in trace.reads),
                values=tuple(p for axis, p in found if axis in set(behind.values())),
                inputs=tuple(p for axis, p in found if axis in taken),
                layers=_layers(trace, own, [axis for axis, _ in constants]),
            )
        )
        roots.append(own[order])
    return Traced(trace, tuple(groups), tuple(roots), tuple(d.makers for d in drafts))


def _drafts(model: Model, trace: Trace, held: Places) -> list[_Draft]:
    units: dict[Key, list[int]] = {}
    for start, key in held.units():
        units.setdefault(key, []).append(start)
    found = [
        (key, np.asarray(starts))
        for key, starts in units.items()
        if len(starts) > 1 and any(const(held.axes[axis][0]) is not None for axis, _ in key)
    ]
    owner = np.full(len(trace.labels), -1)
    for number, (_, starts) in enumerate(found):
        owner[held.root[starts]] = number
    makers: list[dict[ir.Node, None]] = [{} for _ in found]
    for node, axis in trace.made:
        for number in np.unique(owner[trace.roots(axis)]).tolist():
            if number >= 0:
                makers[number][node] = None
    drafts = [
        _Draft(key, starts, tuple(own)) for (key, starts), own in zip(found, makers, strict=True)
    ]
    order = {node: number for number, node in enumerate(model.graph.graph)}
    return sorted(drafts, key=lambda draft: order[draft.makers[0]])


def _order(trace: Trace, maker: ir.Node, roots: Index) -> Index:
    """Units are numbered by where they lie in what the first layer makes."""
    along = np.concatenate([trace.roots(axis) for node, axis in trace.made if node is maker])
    unique, first = np.unique(along, return_index=True)
    at = np.full(len(trace.labels), len(along))
    at[unique] = first
    return np.argsort(at[roots], kind="stable")


def _unused(label: str, names: set[str]) -> str:
    """`label`, with a number where other units of the same layer have it already."""
    tried, again = label, 2
    while tried in names:
        tried, again = f"{label}#{again}", again + 1
    names.add(tried)
    return tried


def _kind(trace: Trace, maker: ir.Node, roots: Index) -> Kind:
    if any(np.isin(trace.roots(axis), roots).any() for axis in trace.heads):
        return "heads"
    if maker.op_type in RECURRENT:
        return "hidden"
    if maker.op_type == "Gather":
        return "embedding"
    return "channels" if maker.op_type.startswith("Conv") else "neurons"


def _layers(trace: Trace, roots: Index, constants: list[Axis]) -> tuple[str, ...]:
    """Names of the nodes with a constant that gets shorter, or that sum over units."""
    names: dict[str, None] = {}
    for value, _ in constants:
        names.update((use.node.name or "?", None) for use in value.uses())
    for taken in trace.taken:
        if np.isin(trace.roots((taken.value, taken.axis)), roots).any():
            names[taken.node.name or "?"] = None
    return tuple(names)
