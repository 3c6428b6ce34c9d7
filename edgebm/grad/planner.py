"""Plans of one graph: nodes chosen, attention fused, sizes remembered."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import replace

from torch import Tensor

from edgebm.grad.fused import FUSED, SCALARS_FROM, fused
from edgebm.grad.op import ByMode, Compute
from edgebm.grad.plan import Node, Plan, Step, needed, spent
from edgebm.grad.sizes import NUMBERS, Brought, Remembered, is_setting, of_sizes

_COPY = "\0"  # in front of a constant's name: its copy on the host


class Planner:
    """What is known of a graph before anything is asked for."""

    def __init__(
        self, nodes: Sequence[Node], frozen: Collection[str], constants: Mapping[str, Tensor]
    ) -> None:
        """Take nodes in order, all constants, and the names of those that are not trained."""
        self._constants = frozenset(constants)
        settings = {label for label in frozen if is_setting(constants[label])}
        self._scalars = {k: float(constants[k]) for k in settings if constants[k].numel() == 1}
        self._sizes = of_sizes(((n.op, n.reads, n.writes) for n in nodes), settings)
        self._nodes = [self._remembered(node) for node in nodes]
        # Only those are copied that are read as numbers somewhere.
        self._copies = {
            read: constants[read].detach().clone()
            for node in nodes
            for i, read in enumerate(node.reads)
            if read in settings and (self._is_of_sizes(node) or _is_number(node.op, i))
        }
        self._copies |= {label: constants[label].detach().clone() for label in self._scalars}

    def plan(
        self,
        wanted: Sequence[str],
        given: frozenset[str],
        tapped: frozenset[str],
        training: bool,  # noqa: FBT001 - one of the things plans are told apart by
    ) -> Plan:
        """The steps for these values, where some are given and some tapped, in a mode.

        Raises:
            UsageError: values that neither are given nor come from any node; all.
        """
        meddled = given | tapped
        chosen = needed(self._nodes, wanted, given | self._constants)
        scalars = {k: v for k, v in self._scalars.items() if k not in meddled}
        nodes = fused(chosen, {*wanted, *meddled}, scalars)
        # Sizes that somebody gives or changes are no longer those of the shapes.
        free = meddled.isdisjoint(self._sizes) and meddled.isdisjoint(self._copies)
        renamed = [self._redirected(node, meddled) for node in nodes]
        leaves = spent([node.reads for node in renamed], {*wanted, *given})
        steps = tuple(
            Step(self._compute(node, training=training, free=free), node.reads, node.writes, last)
            for node, last in zip(renamed, leaves, strict=True)
        )
        read = {label for node in renamed for label in node.reads if label} | set(wanted)
        copies = {_COPY + k: v for k, v in self._copies.items() if _COPY + k in read}
        constants = tuple(sorted(read & self._constants - given))
        return Plan(steps, constants, copies, self._sizes - given)

    def _remembered(self, node: Node) -> Node:
        if not self._is_of_sizes(node) or isinstance(node.bound, ByMode):
            return node
        return replace(node, bound=Remembered(node.op, node.bound))

    def _is_of_sizes(self, node: Node) -> bool:
        return not self._sizes.isdisjoint(node.writes)

    def _redirected(self, node: Node, meddled: frozenset[str]) -> Node:
        """With the copies in place of constants that it reads as numbers."""
        everywhere, held = self._is_of_sizes(node), self._copies.keys() - meddled
        reads = [
            _COPY + read
            if read and read in held and (everywhere or _is_number(node.op, i))
            else read
            for i, read in enumerate(node.reads)
        ]
        return replace(node, reads=tuple(reads))

    def _compute(self, node: Node, *, training: bool, free: bool) -> Compute:
        bound = node.bound
        if isinstance(bound, ByMode):
            return bound.trains if training else bound.answers
        if self._is_of_sizes(node):
            return bound if free or not isinstance(bound, Remembered) else bound.compute
        places = [
            i
            for i, read in enumerate(node.reads)
            if read in self._sizes and not _is_number(node.op, i)
        ]
        return Brought(bound, places) if places else bound


def _is_number(op: str, index: int) -> bool:
    if op == FUSED:
        return index >= SCALARS_FROM
    return index in NUMBERS.get(op, ())
