"""The time axis of a sequence model: from the recurrent nodes back to the inputs, and on."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from itertools import product

import onnx_ir as ir

from edgebm.ir.canonical import canonicalize
from edgebm.ir.edit import name
from edgebm.ir.model import Model
from edgebm.ir.recurrent import X, Y
from edgebm.ir.shapes import static_shape
from edgebm.ir.time_place import LAST, Last, MixesSteps, Place, Walk, Where
from edgebm.ir.time_rules import place_of
from edgebm.ir.traits import RECURRENT

_PRIMES = (31, 37, 41, 43, 47, 53, 59, 61, 67, 71)
_MOST_GUESSES = 64


@dataclass(frozen=True, slots=True)
class Traced:
    """Where time is. `sized` is a copy of the model with a number for each free axis.

    `inputs` has the time axis of each input, None where it has none; `walk.places` that of every
    value of `sized`; `over_time` the names of the recurrent nodes that run over time, and
    `offenders` the sentences about nodes that mix steps.
    """

    sized: Model
    sizes: Mapping[str, int]
    inputs: Mapping[str, int | None]
    walk: Walk
    over_time: frozenset[str]
    offenders: tuple[str, ...]

    @property
    def outputs(self) -> dict[str, Where]:
        """Where time is in each output."""
        return {name(v): self.walk.at(v) for v in self.sized.graph.graph.outputs}


def trace_time(model: Model, kept: frozenset[str]) -> Traced | None:
    """Follow time through a canonical model with recurrent nodes; None if no input leads there.

    Inputs with the size that the recurrent nodes count are tried as those with time; the reading
    under which the fewest nodes mix steps is taken.

    Args:
        model: canonical.
        kept: inputs that are states already.
    """
    sized, sizes = _sized(model)
    recurrent = list(sized.nodes(*RECURRENT))
    counts = {(static_shape(node.inputs[X]) or (0,))[0] for node in recurrent}
    inputs = [v for v in sized.graph.graph.inputs if name(v) not in kept]
    choices = [
        [*(k for k, size in enumerate(static_shape(v) or ()) if size in counts and size > 1), None]
        for v in inputs
    ]
    best: Traced | None = None
    for axes in list(product(*choices))[:_MOST_GUESSES]:
        if all(axis is None for axis in axes):
            continue
        traced = _trace(sized, sizes, dict(zip(inputs, axes, strict=True)))
        if traced is not None and (best is None or _rank(traced) < _rank(best)):
            best = traced
    return best


def _rank(traced: Traced) -> tuple[int, int, int]:
    timed = sum(axis is not None for axis in traced.inputs.values())
    return -len(traced.over_time), len(traced.offenders), -timed


def _sized(model: Model) -> tuple[Model, dict[str, int]]:
    """A copy in which each free axis of an input has a size that no other axis has."""
    work = model.clone()
    values = [v for node in work.nodes() for v in (*node.inputs, *node.outputs) if v is not None]
    taken = {dim for v in values for dim in v.shape or () if isinstance(dim, int)}
    primes = iter([prime for prime in _PRIMES if prime not in taken])
    sizes: dict[str, int] = {}
    for value in work.graph.graph.inputs:
        dims: list[int] = []
        for axis, dim in enumerate(value.shape or ()):
            if isinstance(dim, int):
                dims.append(dim)
            else:
                label = str(dim.value or f"{value.name}.{axis}")
                dims.append(sizes.setdefault(label, next(primes)))
        value.shape = ir.Shape(dims)
    for value in work.graph.graph.outputs:
        value.shape = None if value.producer() is not None else value.shape
    return canonicalize(work), sizes


def _trace(
    sized: Model, sizes: Mapping[str, int], starts: Mapping[ir.Value, int | None]
) -> Traced | None:
    counts = {(static_shape(v) or ())[axis] for v, axis in starts.items() if axis is not None}
    if len(counts) != 1:
        return None
    walk = Walk(counts.pop())
    walk.places.update({v: Place(axis) for v, axis in starts.items() if axis is not None})
    over_time: set[str] = set()
    offenders: list[str] = []
    for node in sized.nodes():
        offenders += _visit(node, walk, over_time)
    inputs = {name(v): axis for v, axis in starts.items()}
    return Traced(sized, sizes, inputs, walk, frozenset(over_time), tuple(offenders))


def _visit(node: ir.Node, walk: Walk, over_time: set[str]) -> list[str]:
    """Put the node's outputs in their places; a sentence where it mixes steps."""
    try:
        if node.op_type in RECURRENT:
            over_time |= set(_recurrent(node, walk))
        else:
            place = place_of(node, walk)
            walk.places.update(dict.fromkeys(node.outputs, place))
    except MixesSteps as fault:
        return [f"{node.name} ({node.op_type}): {fault}"]
    return []


def _recurrent(node: ir.Node, walk: Walk) -> Iterator[str]:
    """Places of what a recurrent node gives; its name if it runs over time."""
    place = walk.at(node.inputs[X])
    if place is None:
        return
    if isinstance(place, Last):
        raise MixesSteps("runs over what is known after the last step only (a decoder)")
    others = [value for k, value in enumerate(node.inputs) if k != X]
    if any(isinstance(walk.at(v), Last) for v in others):
        raise MixesSteps("begins with what is known after the last step of another (a decoder)")
    if place == Place(1, place.outer, place.inner):
        # It runs over another axis (bands of a spectrum, say), anew at each step.
        walk.places[node.outputs[Y]] = Place(2, place.outer, place.inner)
        for value in node.outputs[1:]:
            walk.places[value] = Place(1, place.outer, place.inner)
        return
    if place != Place(0):
        raise MixesSteps("takes steps as features")
    walk.places[node.outputs[Y]] = place
    walk.places.update(dict.fromkeys(node.outputs[1:], LAST))
    yield node.name or ""
