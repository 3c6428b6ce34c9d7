"""Coupled groups of a graph: what has to be cut together, and what cannot be cut."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from edgebm.ir.model import Model
from edgebm.pruning.group import Group, Index
from edgebm.pruning.grouping import Traced, trace_groups
from edgebm.pruning.trace import Trace


@dataclass(frozen=True, slots=True)
class Found:
    """The groups of a model in the order of their first layers, and who stays whole and why.

    `frozen` has the name of a layer none of whose units can be cut, and a sentence.
    """

    groups: tuple[Group, ...]
    frozen: tuple[tuple[str, str], ...]


def _nothing(name: str, op_type: str) -> bool:
    """No node is ignored."""
    return False


def find_groups(model: Model, is_ignored: Callable[[str, str], bool] = _nothing) -> Found:
    """Units that can be cut, in groups, and the layers whose units cannot.

    Every position along every axis gets a label, and every op says which of them live or go
    together (a residual Add its operands', a Concat each part's). What has the same label is a
    unit; what touches an input or output of the model, or an op without a rule, is frozen.

    Args:
        model: in canonical form, float.
        is_ignored: says of a node's name and op type whether the user wants all of its units:
            then every group that it makes units of is whole.

    Source:
        Fang et al. 2023, arXiv:2301.12900, section 3.2 (groups of coupled layers).
    """
    traced = trace_groups(model)
    groups, ignored = [], []
    for group, makers in zip(traced.groups, traced.makers, strict=True):
        held = [node.name or "?" for node in makers if is_ignored(node.name or "", node.op_type)]
        if held:
            whole = "it is ignored" if held[0] == group.name else f"'{held[0]}' is ignored"
            ignored.append((group.name, whole))
        else:
            groups.append(group)
    return Found(tuple(groups), (*ignored, *_frozen(traced)))


def _frozen(traced: Traced) -> list[tuple[str, str]]:
    """Layers none of whose units is in a group, each with the first reason."""
    trace = traced.trace
    free = np.zeros(len(trace.labels), np.bool_)
    for roots in traced.roots:
        free[roots] = True
    able: set[str] = set()
    why: dict[str, str] = {}
    for node, axis in trace.made:
        label, roots = node.name or "?", trace.roots(axis)
        if free[roots].any():
            able.add(label)
        elif label not in why:
            why[label] = _why(trace, label, roots)
    return [(label, sentence) for label, sentence in why.items() if label not in able]


def _why(trace: Trace, label: str, roots: Index) -> str:
    if not len(roots):
        return "it makes one unit, or a number that is not known"
    stuck = trace.labels.is_frozen(roots)
    if not stuck.any():
        return "its units hang together with those of other layers: none can go alone"
    node, sentence = trace.labels.reason(int(roots[stuck][0]))
    return sentence if node in ("", label) else f"at '{node}': {sentence}"
