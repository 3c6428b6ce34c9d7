"""Models with state: which states they have, and their samples as single steps."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any

from numpy.typing import NDArray

from edgebm.data.batch import Feeds
from edgebm.data.over_time import TimeView, View, sees_each_step
from edgebm.data.samples import Samples
from edgebm.data.steps import Steps, Whole
from edgebm.errors import UsageError
from edgebm.exec.carry import Run, States, settle_growth
from edgebm.ir.face import face as face_of
from edgebm.ir.given_states import GivenPair, given_states
from edgebm.ir.model import Model
from edgebm.ir.states import find_states
from edgebm.ir.streaming import to_streaming
from edgebm.runtime.npy import npy_bytes
from edgebm.search.candidates import Face
from edgebm.search.initial_state import InitialState, initial_state
from edgebm.search.shapes import LARGEST_AXIS, ShapeLists
from edgebm.search.step_samples import first_step
from edgebm.search.streaming_proof import prove, streaming_notes


@dataclass(frozen=True, slots=True)
class Wanted:
    """What the user said about states.

    `pairs` None: they are looked for. `streaming` makes a model of single steps of one of
    sequences.
    """

    pairs: tuple[GivenPair, ...] | None = None
    streaming: bool = False
    initial: InitialState | None = None


def wanted_states(
    state: Sequence[GivenPair] | None,
    *,
    streaming: bool = False,
    initial_state: InitialState | None = None,
) -> Wanted:
    """The arguments of the public verbs, by their names there."""
    return Wanted(None if state is None else tuple(state), streaming, initial_state)


@dataclass(frozen=True, slots=True)
class Settled:
    """A model with its states; `states.pairs` is empty where it has none.

    `whole` has the inputs of the sequence model that a streaming model was made from; `prove`
    compares both on samples of that.
    """

    model: Model
    face: Face
    states: States
    whole: Mapping[str, Whole] = field(default_factory=dict)
    notes: tuple[str, ...] = ()
    prove: Callable[[Sequence[Feeds]], None] = lambda samples: None

    @property
    def steps(self) -> Steps:
        """How its samples are read."""
        return Steps(self.states.names, self.whole)


def settle_states(model: Model, wanted: Wanted) -> Settled:
    """Find the states of a canonical model, or take those that are given.

    Raises:
        UsageError: pairs that do not fit.
        DataError: an initial state that does not fit.
        UnsupportedModel: it cannot be made streaming.
    """
    if wanted.streaming:
        return _streaming(model, wanted)
    face = Face(*(tuple(side) for side in face_of(model)))
    if wanted.pairs is None:
        pairs = find_states(model)
    else:
        pairs = given_states(wanted.pairs, face.inputs, face.outputs)
    return _settled(model, face, States(face.inputs, pairs), wanted.initial)


def _settled(model: Model, face: Face, states: States, given: InitialState | None) -> Settled:
    if given is not None and not states.pairs:
        raise UsageError(
            "--initial-state is given, and the model has no state",
            hint="name its states with --state INPUT:OUTPUT",
        )
    specs = [spec for spec in face.inputs if spec.name in states.names]
    initial = {**states.initial, **initial_state(given, specs, states.growing)}
    notes = (f"states: {', '.join(map(str, states.pairs))}",) if states.pairs else ()
    return Settled(model, face, replace(states, initial=initial), {}, notes)


def _streaming(model: Model, wanted: Wanted) -> Settled:
    """The streaming form of a sequence model, proved equal to it."""
    before = Face(*(tuple(side) for side in face_of(model)))
    made = to_streaming(model)
    face = Face(*(tuple(side) for side in face_of(made.model)))
    known = {pair.input: pair for pair in made.pairs}
    known |= {p.input: p for p in given_states(wanted.pairs or (), face.inputs, face.outputs)}
    pairs = tuple(known[spec.name] for spec in face.inputs if spec.name in known)
    states = States(face.inputs, pairs, made.initial)
    prove(model, before, made, states)
    settled = _settled(made.model, face, states, wanted.initial)
    whole = {
        spec.name: Whole(spec, made.times.get(spec.name))
        for spec in before.inputs
        if spec.name not in states.names
    }
    notes = (*streaming_notes(made), *settled.notes)
    again = partial(prove, model, before, made, states)
    return replace(settled, whole=whole, notes=notes, prove=again)


def with_axes(settled: Settled, run: Run, samples: Samples, listed: ShapeLists) -> States:
    """The states with the sizes that growing axes may have.

    Args:
        settled: states of the model.
        run: the float model.
        samples: whose first step is tried.
        listed: `--shapes`, whose largest sizes bound growing axes.

    Raises:
        UsageError: a listed shape does not fit.
        DataError: the model takes no small cache.
    """
    states = settled.states
    largest = dict.fromkeys(states.growing, LARGEST_AXIS)
    for spec in states.inputs:
        for shape in listed.get(spec.name, ()) if spec.name in states.names else ():
            if len(shape) != len(spec.shape):
                raise UsageError(f"--shapes: shape {list(shape)} does not fit {spec}")
        for axis, dim in enumerate(spec.shape):
            if dim in largest and spec.name in listed and spec.name in states.names:
                largest[str(dim)] = max(shape[axis] for shape in listed[spec.name])
    return settle_growth(run, states, first_step(samples, states), largest)


def view_of(face: Face, states: States, samples: Samples, labels: NDArray[Any] | None) -> View:
    """What a judge of these samples sees of answers.

    Raises:
        DataError: the labels are neither of sequences nor of steps.
    """
    hidden = states.outputs if len(states.outputs) < len(face.outputs) else frozenset()
    if not states.pairs or not samples.sequences:
        return View(face.outputs, hidden)
    step = first_step(samples, states)
    specs = {spec.name: spec for spec in face.inputs}
    sizes = {
        dim: size
        for name, array in step.items()
        for dim, size in zip(specs[name].shape, array.shape, strict=True)
        if isinstance(dim, str)
    }
    view = TimeView(face.outputs, hidden, sizes)
    if labels is None:
        return view
    return replace(view, each_step=sees_each_step(labels, samples.lengths, view.face))


def states_dict(states: States) -> list[dict[str, Any]]:
    """The states for a report, in JSON types."""
    return [
        {
            "input": pair.input,
            "output": pair.output,
            "found": pair.how,
            "initial": "given" if pair.input in states.initial else "zeros",
        }
        for pair in states.pairs
    ]


def carried_parts(states: States) -> dict[str, Any]:
    """What of the states decides a score, in JSON types; empty without any."""
    if not states.pairs:
        return {}
    initial = {key: hashlib.sha256(npy_bytes(a)).hexdigest() for key, a in states.initial.items()}
    pairs = [[pair.input, pair.output] for pair in states.pairs]
    return {"states": pairs, "initial": initial, "axes": dict(states.axes)}


def fed_face(face: Face, states: Sequence[str] | frozenset[str]) -> Face:
    """The face without the inputs that hold a state."""
    return Face(tuple(s for s in face.inputs if s.name not in states), face.outputs)
