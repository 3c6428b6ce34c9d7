"""Coupled groups of a graph: what has to be cut together, and what cannot be cut."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np
import onnx_ir as ir

from edgebm.ir.edit import const, name
from edgebm.ir.model import Model
from edgebm.ir.traits import RECURRENT
from edgebm.prune.follow import follow
from edgebm.prune.group import Group, Index, Kind, Place
from edgebm.prune.trace import Axis, Trace
from edgebm.prune.values import after_maker

_NARROWED = ("BatchNormalization", "InstanceNormalization", "LayerNormalization")


@dataclass(frozen=True, slots=True)
class Found:
    """The groups of a model in the order of their first layers, and who stays whole and why."""

    groups: tuple[Group, ...]
    frozen: tuple[tuple[str, str], ...]


@dataclass(frozen=True, slots=True)
class Traced:
    """The groups with the labels they come from; `roots` has one label for each unit."""

    trace: Trace
    groups: tuple[Group, ...]
    roots: tuple[Index, ...]


@dataclass(frozen=True, slots=True)
class _Held:
    """Where labels lie that may go: one row for each position, sorted by root."""

    axes: list[Axis]
    root: Index
    axis: Index
    position: Index


def find_groups(
    model: Model, is_ignored: Callable[[str, str], bool] = lambda name, op_type: False
) -> Found:
    """Units that can be cut, in groups, and the layers whose units cannot.

    Args:
        model: in canonical form, float.
        is_ignored: says of a node's name and op type whether the user wants it whole: then so
            is every group that it makes units of.
    """
    traced = trace_groups(model)
    nodes = {node.name: node for node in model.nodes()}
    groups, frozen = [], []
    makers = {node.name or "?" for node, _ in traced.trace.made}
    for group in traced.groups:
        ignored = [
            label
            for label in group.layers
            if label in makers
            and is_ignored(label, nodes[label].op_type)
            and _makes(traced.trace, nodes[label], group, traced)
        ]
        if ignored:
            frozen.append((group.name, f"'{ignored[0]}' is ignored"))
        else:
            groups.append(group)
    return Found(tuple(groups), (*frozen, *_frozen(traced)))


def _makes(trace: Trace, node: ir.Node, group: Group, traced: Traced) -> bool:
    roots = traced.roots[traced.groups.index(group)]
    return any(
        bool(np.isin(trace.roots(axis), roots).any())
        for maker, axis in trace.made
        if maker is node
    )


def _frozen(traced: Traced) -> list[tuple[str, str]]:
    """Layers none of whose units is in a group, each with the first reason."""
    trace = traced.trace
    free = np.concatenate([np.empty(0, np.int64), *traced.roots])
    found: dict[str, str] = {}
    kept: set[str] = set()
    for node, axis in trace.made:
        label, roots = node.name or "?", trace.roots(axis)
        if np.isin(roots, free).any():
            kept.add(label)
        elif label not in found:
            found[label] = _why(trace, roots)
    return [(label, why) for label, why in found.items() if label not in kept]


def _why(trace: Trace, roots: Index) -> str:
    if not len(roots):
        return "it makes one unit, or a number that is not known"
    stuck = trace.labels.is_frozen(roots)
    if not stuck.any():
        return "all of its units hang together: none can go alone"
    node, sentence = trace.labels.reason(int(roots[stuck][0]))
    return f"at '{node}': {sentence}" if node else sentence


def trace_groups(model: Model) -> Traced:
    """All groups of a model, with their labels; nothing is ignored."""
    trace = follow(model)
    held = _held(trace)
    units: dict[tuple[tuple[int, int], ...], list[int]] = {}
    starts = np.flatnonzero(np.diff(held.root, prepend=-1))
    stops = np.append(starts[1:], len(held.root))
    for start, stop in zip(starts, stops, strict=True):
        which, counts = np.unique(held.axis[start:stop], return_counts=True)
        key = tuple(zip(which.tolist(), counts.tolist(), strict=True))
        units.setdefault(key, []).append(int(start))
    found = [
        (key, members)
        for key, members in units.items()
        if len(members) > 1 and any(const(held.axes[axis][0]) is not None for axis, _ in key)
    ]
    makers = _first_makers(trace)
    order = {node: number for number, node in enumerate(model.graph.graph)}
    ranked = sorted(
        (min(order[makers[int(held.root[m])]] for m in members), number)
        for number, (_, members) in enumerate(found)
    )
    groups, roots, names = [], [], set()
    for _, number in ranked:
        key, members = found[number]
        maker = makers[int(held.root[members[0]])]
        group, own = _group(trace, held, key, members, maker)
        label, again = group.name, 2
        while label in names:
            label, again = f"{group.name}#{again}", again + 1
        names.add(label)
        groups.append(replace(group, name=label))
        roots.append(own)
    return Traced(trace, tuple(groups), tuple(roots))


def _first_makers(trace: Trace) -> dict[int, ir.Node]:
    makers: dict[int, ir.Node] = {}
    for node, axis in trace.made:
        for root in np.unique(trace.roots(axis)).tolist():
            makers.setdefault(root, node)
    return makers


def _held(trace: Trace) -> _Held:
    """All places of the units that some layer makes and nothing freezes."""
    made = [trace.roots(axis) for _, axis in trace.made]
    able = np.unique(np.concatenate([np.empty(0, np.int64), *made]))
    able = able[~trace.labels.is_frozen(able)]
    seen = [after_maker(trace, node, axis) for node, axis in trace.made]
    shown = {*seen, *(axis for _, axis in trace.read_at)}
    axes, roots, numbers, positions = [], [], [], []
    for axis in list(trace.axes):
        if const(axis[0]) is None and axis not in shown:
            continue
        own = trace.roots(axis)
        wanted = np.flatnonzero(np.isin(own, able))
        if len(wanted):
            roots.append(own[wanted])
            numbers.append(np.full(len(wanted), len(axes)))
            positions.append(wanted)
            axes.append(axis)
    if not axes:
        return _Held([], *(np.empty(0, np.int64) for _ in range(3)))
    root, number, position = (np.concatenate(p) for p in (roots, numbers, positions))
    order = np.lexsort((position, number, root))
    return _Held(axes, root[order], number[order], position[order])


def _group(
    trace: Trace,
    held: _Held,
    key: tuple[tuple[int, int], ...],
    members: list[int],
    maker: ir.Node,
) -> tuple[Group, Index]:
    """The group of the units that begin at rows `members`, and a label for each."""
    places: list[tuple[Axis, Place]] = []
    offset = 0
    for number, count in key:
        axis = held.axes[number]
        rows = np.asarray(members)[:, None] + offset + np.arange(count)
        places.append((axis, Place(name(axis[0]), axis[1], held.position[rows])))
        offset += count
    # Units are numbered by where they lie in what the first layer makes.
    first = next(axis for node, axis in trace.made if node is maker)
    along = {root: place for place, root in reversed(list(enumerate(trace.roots(first).tolist())))}
    own = held.root[members]
    order = np.argsort([along.get(root, len(along)) for root in own.tolist()], kind="stable")
    places = [(axis, replace(place, index=place.index[order])) for axis, place in places]
    values = {after_maker(trace, node, axis) for node, axis in trace.made}
    taken = {axis for _, axis in trace.read_at}
    constants = [(axis, place) for axis, place in places if const(axis[0]) is not None]
    return Group(
        name=maker.name or "?",
        kind=_kind(trace, maker, own),
        units=len(members),
        writes=tuple(place for axis, place in constants if axis not in trace.reads),
        reads=tuple(place for axis, place in constants if axis in trace.reads),
        values=tuple(place for axis, place in places if axis in values),
        inputs=tuple(place for axis, place in places if axis in taken),
        layers=_layers(trace, own, [axis for axis, _ in places]),
    ), own[order]


def _kind(trace: Trace, maker: ir.Node, roots: Index) -> Kind:
    if any(np.isin(trace.roots(axis), roots).any() for axis in trace.heads):
        return "heads"
    if maker.op_type in RECURRENT:
        return "hidden"
    if maker.op_type == "Gather":
        return "embedding"
    return "channels" if maker.op_type.startswith("Conv") else "neurons"


def _layers(trace: Trace, roots: Index, axes: list[Axis]) -> tuple[str, ...]:
    """Names of the nodes with a constant that gets narrower, or that take a sum over units."""
    names: dict[str, None] = {}
    for value, _ in axes:
        if const(value) is not None:
            names.update((use.node.name or "?", None) for use in value.uses())
    for taken in trace.taken:
        value = taken.node.inputs[taken.index]
        assert value is not None
        if np.isin(trace.roots((value, taken.axis)), roots).any():
            names[taken.node.name or "?"] = None
    return tuple(names)
