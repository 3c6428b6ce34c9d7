"""What a model costs at other widths: multiply-accumulates, and measured milliseconds."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import cached_property

from edgebm.exec.collect import Feeds
from edgebm.ir.edit import name
from edgebm.ir.model import Model
from edgebm.ir.traits import MATMULS, RECURRENT
from edgebm.pruning.group import Group
from edgebm.pruning.macs import Counts, Term, terms_of, value_shapes
from edgebm.pruning.one_layer import nothing, one_layer


class Costs:
    """What a model costs when units of its groups are removed.

    With `time_ms` the time of each layer at each width that is asked for is measured once, as a
    model of that layer alone; what a call of almost nothing takes is subtracted.
    """

    def __init__(
        self,
        model: Model,
        groups: Sequence[Group],
        feeds: Feeds,
        time_ms: Callable[[Model], float] | None,
    ) -> None:
        self._model, self._time_ms = model, time_ms
        self._shapes = value_shapes(model, feeds)
        self.terms = terms_of(model, groups, self._shapes)
        self._nodes = {node.name: node for node in model.nodes(*MATMULS, *RECURRENT)}
        self._by_group: dict[str, list[Term]] = {}
        for term in self.terms:
            for group in term.groups:
                self._by_group.setdefault(group, []).append(term)
        self._known_ms: dict[tuple[object, ...], float] = {}
        self._by_node: dict[str, list[Term]] = {}
        for term in self.terms:
            self._by_node.setdefault(term.node, []).append(term)

    @property
    def is_timed(self) -> bool:
        """Whether times can be measured here."""
        return self._time_ms is not None

    def macs(self, removed: Counts, group: str | None = None) -> float:
        """Multiply-accumulates of all layers, or of those that a group narrows."""
        terms = self.terms if group is None else self._by_group.get(group, [])
        return sum(term.left(removed) for term in terms)

    def ms(self, removed: Counts, group: str | None = None) -> float:
        """Milliseconds of all layers that can be narrowed, or of those that a group narrows."""
        terms = self.terms if group is None else self._by_group.get(group, [])
        nodes = dict.fromkeys(term.node for term in terms if term.groups)
        return sum(self._layer_ms(node, removed) for node in nodes)

    def _layer_ms(self, node: str, removed: Counts) -> float:
        """Milliseconds of a layer with what is left of it; 0 where it cannot be built alone."""
        assert self._time_ms is not None
        shapes = {
            term.weight: tuple(axis.kept(removed) for axis in term.axes)
            for term in self._by_node[node]
            if term.weight is not None
        }
        key = (node, *sorted(shapes.items()))
        if key not in self._known_ms:
            layer = self._nodes[node]
            read = layer.inputs[0]
            assert read is not None
            model = one_layer(layer, shapes, self._shapes[name(read)]) if shapes else None
            ms = 0.0 if model is None else self._time_ms(model) - self._call_ms
            self._known_ms[key] = max(0.0, ms)
        return self._known_ms[key]

    @cached_property
    def _call_ms(self) -> float:
        assert self._time_ms is not None
        return self._time_ms(nothing())
