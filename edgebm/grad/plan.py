"""Which nodes are computed for the values asked for, in what order, and what is dropped when."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import onnx_ir as ir
from torch import Tensor

from edgebm.errors import UsageError
from edgebm.grad.op import Bound, Compute
from edgebm.ir.edit import name


@dataclass(frozen=True, slots=True)
class Node:
    """One node: what it does, the values it reads and writes, and the axis it works along.

    The axis counts from the end where the rank is known; -1 where the node has none.
    """

    op: str
    bound: Bound
    reads: tuple[str | None, ...]
    writes: tuple[str, ...]
    axis: int = -1

    @classmethod
    def of(cls, node: ir.Node, bound: Bound) -> Node:
        """From a node of the graph, which is not kept."""
        reads = tuple(None if value is None else name(value) for value in node.inputs)
        writes = tuple(value.name or "" for value in node.outputs)
        axis = node.attributes.get_int("axis", -1)
        shape = None if not node.inputs or node.inputs[0] is None else node.inputs[0].shape
        if shape is not None and axis >= 0:
            axis -= len(shape)
        return cls(node.op_type, bound, reads, writes, axis)


@dataclass(frozen=True, slots=True)
class Step:
    """One node of a plan, in one mode, and the values that nobody reads after it."""

    compute: Compute
    reads: tuple[str | None, ...]
    writes: tuple[str, ...]
    spent: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Plan:
    """Steps in order, the constants that they or the caller read, and copies on the host.

    `remembered` are values that are kept for later calls.
    """

    steps: tuple[Step, ...]
    constants: tuple[str, ...]
    copies: Mapping[str, Tensor]
    remembered: frozenset[str]

    def handed_out(self, label: str, value: Tensor) -> Tensor:
        """What the caller gets: of a remembered value a copy."""
        return value.clone() if label in self.remembered else value


def needed(nodes: Sequence[Node], wanted: Sequence[str], given: frozenset[str]) -> list[Node]:
    """The nodes that `wanted` needs and `given` does not spare, in order.

    Raises:
        UsageError: values that neither are given nor come from any node; all.
    """
    missing, chosen = set(wanted) - given, []
    for node in reversed(nodes):
        if missing.isdisjoint(node.writes):
            continue
        chosen.append(node)
        missing -= set(node.writes)
        missing |= {read for read in node.reads if read is not None} - given
    if missing:
        raise UsageError(
            f"values that are not given and that no node computes: {sorted(missing)}",
            hint="give every input by its name, and fetch values by names the graph has",
        )
    return chosen[::-1]


def spent(reads: Sequence[tuple[str | None, ...]], kept: set[str]) -> list[tuple[str, ...]]:
    """For each step, by what the steps read, the values that none after it reads."""
    later, found = set(kept), []
    for each in reversed(reads):
        mine = {read for read in each if read is not None}
        found.append(tuple(sorted(mine - later)))
        later |= mine
    return found[::-1]
