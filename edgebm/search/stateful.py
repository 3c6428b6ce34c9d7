"""Models with state: which states they have, and their samples as single steps."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgebm.data.batch import Feeds
from edgebm.data.over_time import TimeView, View, sees_each_step
from edgebm.data.samples import Samples, kept_samples, open_samples
from edgebm.data.steps import Steps, Whole
from edgebm.errors import UsageError
from edgebm.exec.carry import Run, States, settle_growth, walk
from edgebm.exec.collect import FloatRunner
from edgebm.ir.face import face as face_of
from edgebm.ir.given_states import GivenPair, given_states
from edgebm.ir.model import Model
from edgebm.ir.states import find_states
from edgebm.runtime.npy import npy_bytes
from edgebm.search.candidates import Face
from edgebm.search.initial_state import InitialState, initial_state
from edgebm.search.made_up import made_up_samples
from edgebm.search.shapes import LARGEST_AXIS, ShapeLists

CALIBRATION_STEPS = 1024
"""No more steps calibrate, however many there are: the sequences share them."""
_RUN_STEPS = 20_000  # of the float model, to have its states
_CALLS, _CALL_SEQUENCES = 64, 8
_MADE_UP_STEPS = 4
_GOLDEN_RATIO = 0.6180339887498949


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

    `whole` has the inputs of the sequence model that a streaming model was made from.
    """

    model: Model
    face: Face
    states: States
    whole: Mapping[str, Whole] = field(default_factory=dict)
    notes: tuple[str, ...] = ()

    @property
    def steps(self) -> Steps:
        """How its samples are read."""
        return Steps(self.states.names, self.whole)


def settle_states(model: Model, wanted: Wanted) -> Settled:
    """Find the states of a canonical model, or take those that are given.

    Raises:
        UsageError: pairs that do not fit.
        DataError: an initial state that does not fit.
    """
    inputs, outputs = (tuple(side) for side in face_of(model))
    if wanted.pairs is None:
        pairs = find_states(model)
    else:
        pairs = given_states(wanted.pairs, inputs, outputs)
    states = States(inputs, pairs)
    specs = [spec for spec in inputs if spec.name in states.names]
    if wanted.initial is not None and not pairs:
        raise UsageError(
            "--initial-state is given, and the model has no state",
            hint="name its states with --state INPUT:OUTPUT",
        )
    initial = initial_state(wanted.initial, specs, states.growing)
    notes = (f"states: {', '.join(map(str, pairs))}",) if pairs else ()
    return Settled(model, Face(inputs, outputs), replace(states, initial=initial), {}, notes)


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


def first_step(samples: Samples, states: States) -> Feeds:
    """What is fed at the first step of the first sample; no states."""
    feeds = next(iter(samples.feeds(0, 1)))
    fed = {key: array for key, array in feeds.items() if key not in states.names}
    return {key: array[0] for key, array in fed.items()} if samples.sequences else fed


def made_up_sequences(
    settled: Settled, listed: ShapeLists, like: Samples | None, seed: int
) -> Samples:
    """Sequences that the model accepts; see `made_up_samples`."""
    states, face = settled.states, settled.face
    fed = tuple(spec for spec in face.inputs if spec.name not in states.names)
    shapes = None
    if like is not None:
        shapes = {key: array.shape for key, array in first_step(like, states).items()}
    wanted = {key: value for key, value in listed.items() if key not in states.names}
    steps = made_up_samples(settled.model, Face(fed, face.outputs), wanted, shapes, seed)
    rows = list(steps.feeds())
    parts = [rows[k : k + _MADE_UP_STEPS] for k in range(0, len(rows), _MADE_UP_STEPS)]
    made = [{key: np.stack([row[key] for row in part])[None] for key in part[0]} for part in parts]
    return open_samples(made, face.inputs, steps=Steps(states.names))


def affordable(samples: Samples, seed: int) -> Samples:
    """As many of the sequences, spread evenly, as the float model can run through soon."""
    total = sum(samples.lengths)
    if not samples.sequences or total <= _RUN_STEPS:
        return samples
    return samples.subset(max(1, len(samples) * _RUN_STEPS // total), seed)


def calibration_steps(samples: Samples, states: States, model: Model) -> Samples:
    """Single steps of the samples with the states that the float model has there.

    At most `CALIBRATION_STEPS` (one of each sequence at least), spread over all sequences and over
    the time of each; the last step, where a state has come farthest, is always among them. They
    are kept in a temporary file: memory does not grow with their number.

    Raises:
        DataError: the model does not run on them.
    """
    share = max(1, CALIBRATION_STEPS // len(samples))
    return _kept(_steps(samples, states, model, share, len(samples)), samples)


def call_samples(samples: Samples, states: States, model: Model) -> Samples:
    """A few single steps with states; the first is the middle step of the first sequence."""
    count = min(_CALL_SEQUENCES, len(samples)) if samples.sequences else min(_CALLS, len(samples))
    steps = list(_steps(samples, states, model, _CALLS // _CALL_SEQUENCES, count))
    middle = samples.lengths[0] // 2
    first = min(steps, key=lambda each: (each[0], abs(each[1] - middle)))
    rest = [each for each in steps if each is not first]
    return _kept(iter([first, *rest]), samples)


def _kept(steps: Iterator[tuple[int, int, Feeds]], samples: Samples) -> Samples:
    return kept_samples((feeds for _, _, feeds in steps), samples.inputs, samples.source)


def _steps(
    samples: Samples, states: States, model: Model, share: int, count: int
) -> Iterator[tuple[int, int, Feeds]]:
    """(sample, step, feeds) of at most `share` steps of each of the first `count` samples."""
    run = float_run(model)
    lengths = samples.lengths
    for index, feeds in enumerate(samples.feeds(0, count)):
        if not samples.sequences:
            yield index, 0, {**states.begin(feeds), **feeds}
            continue
        wanted = picked(lengths[index], share, index)
        for step, (arrays, _) in enumerate(walk(run, states, feeds)):
            if step in wanted:
                yield index, step, arrays
            if step >= max(wanted):
                break


def picked(length: int, share: int, index: int) -> frozenset[int]:
    """At most `share` of `length` steps: one of each equal stretch, and of several the last.

    `index`, the number of the sequence, moves them along, so that together the sequences cover
    all times.
    """
    if length <= share:
        return frozenset(range(length))
    part = (index + 1) * _GOLDEN_RATIO % 1.0
    steps = [int((k + part) * length / share) for k in range(share)]
    return frozenset(steps if share == 1 else [*steps[:-1], length - 1])


def float_run(model: Model) -> Run:
    """The float model on ONNX Runtime."""
    outputs = [value.name or "" for value in model.graph.graph.outputs]
    runner = FloatRunner(model, outputs)

    def run(feeds: dict[str, NDArray[Any]]) -> dict[str, NDArray[Any]]:
        return runner.run(feeds)

    return run


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
