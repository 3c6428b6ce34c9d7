"""Whether a streaming model gives, step by step, what its sequence model gives at once."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgebm.data.batch import Feeds
from edgebm.data.samples import Samples
from edgebm.data.steps import Whole
from edgebm.errors import UnsupportedModel
from edgebm.exec.carry import States, walk
from edgebm.exec.collect import FloatRunner, float_run
from edgebm.ir.model import Model
from edgebm.ir.streaming import Streaming
from edgebm.ir.time_place import Last, Place, Where
from edgebm.search.candidates import Face
from edgebm.search.made_up import made_up_samples
from edgebm.spec import Dim, TensorSpec

_STEPS = 12  # where the number of steps is free
# Other kernels sum in another order, and a carried state adds that up.
_TOLERANCE = 1e-3


def prove(
    original: Model,
    face: Face,
    streaming: Streaming,
    states: States,
    samples: Sequence[Feeds] = (),
) -> None:
    """Run both in float, on random steps and on `samples`, and compare every output at every step.

    Args:
        original: the sequence model.
        face: its inputs and outputs.
        streaming: made from it.
        states: of the streaming model.
        samples: feeds of the sequence model.

    Raises:
        UnsupportedModel: they differ by more than float rounding; says where and by how much.
    """
    run, whole = float_run(streaming.model), FloatRunner(original, [s.name for s in face.outputs])
    for feeds in (*_random(original, face, streaming), *samples):
        wanted = whole.run(feeds)
        count = _count(feeds, streaming.times)
        fed = _as_steps(feeds, streaming, states, count)
        steps = [answers for _, answers in walk(run, states, fed)]
        for spec in face.outputs:
            _compare(spec, streaming.ends.get(spec.name), wanted[spec.name], steps)


def _random(original: Model, face: Face, streaming: Streaming) -> Iterator[Feeds]:
    shapes = {
        spec.name: tuple(
            dim
            if isinstance(dim, int)
            else (_STEPS if streaming.times.get(spec.name) == axis else 1)
            for axis, dim in enumerate(spec.shape)
        )
        for spec in face.inputs
    }
    samples = made_up_samples(original, face, {}, shapes, seed=0)
    yield from samples.feeds(0, 2)


def _count(feeds: Feeds, times: Mapping[str, int | None]) -> int:
    counts = [feeds[key].shape[axis] for key, axis in times.items() if axis is not None]
    return counts[0] if counts else 1


def _as_steps(feeds: Feeds, streaming: Streaming, states: States, count: int) -> Feeds:
    """Arrays [T, ...] of a sequence model's feeds; its states as they are."""
    found = {}
    for key, array in feeds.items():
        axis = streaming.times.get(key)
        if key in states.names:
            found[key] = array
        elif axis is None:
            found[key] = np.broadcast_to(array, (count, *array.shape))
        else:
            found[key] = np.expand_dims(np.moveaxis(array, axis, 0), axis + 1)
    return found


def _compare(
    spec: TensorSpec, end: Where, wanted: NDArray[Any], steps: Sequence[Mapping[str, NDArray[Any]]]
) -> None:
    if isinstance(end, Place):
        pairs = [
            (step, np.take(wanted, [step], end.axis), answers[spec.name])
            for step, answers in enumerate(steps)
        ]
    else:
        pairs = [(len(steps) - 1, wanted, steps[-1][spec.name])]
    scale = max(1.0, float(np.abs(wanted[np.isfinite(wanted)]).max(initial=0.0)))
    for step, want, got in pairs:
        if want.shape != got.shape:
            raise _differs(spec, step, f"it is {list(got.shape)} instead of {list(want.shape)}")
        error = float(np.abs(want.astype(np.float64) - got).max(initial=0.0)) / scale
        if not error <= _TOLERANCE:
            raise _differs(spec, step, f"its largest error is {error:.2g} of the largest value")


def _differs(spec: TensorSpec, step: int, what: str) -> UnsupportedModel:
    return UnsupportedModel(
        f"--streaming: output '{spec.name}' is not what the sequence model gives at step {step}: "
        f"{what}",
        hint="some node depends on other steps in a way that was not seen; leave out --streaming",
    )


def whole_samples(samples: Samples, whole: Mapping[str, Whole], count: int) -> list[Feeds]:
    """The first `count` samples as the sequence model takes them; those of another T left out."""
    found = []
    for feeds in samples.feeds(0, count) if samples.sequences else ():
        made = {key: _joined(array, whole.get(key)) for key, array in feeds.items()}
        shapes = [
            (whole[key].spec.shape, array.shape) for key, array in made.items() if key in whole
        ]
        if all(_fits(want, got) for want, got in shapes):
            found.append(made)
    return found


def _joined(array: NDArray[Any], whole: Whole | None) -> NDArray[Any]:
    if whole is None:
        return array
    if whole.axis is None:
        return np.asarray(array[0])
    return np.moveaxis(np.squeeze(array, whole.axis + 1), 0, whole.axis)


def _fits(want: Sequence[Dim], got: Sequence[int]) -> bool:
    return all(isinstance(w, str) or w == g for w, g in zip(want, got, strict=True))


def streaming_notes(streaming: Streaming) -> Iterator[str]:
    """What the report says of a model that was made streaming."""
    yield (
        "made streaming: one step at a time, proved equal to the sequence model in float at every "
        "step"
    )
    states = {pair.output for pair in streaming.pairs}
    last = [label for label, end in streaming.ends.items() if isinstance(end, Last)]
    ends = [label for label in last if label not in states]
    if ends:
        yield (
            f"{', '.join(ends)}: what the sequence model gives after its last step, the streaming "
            "model gives after each one"
        )
