"""Arrays of a file through streams: one stream for each sample, one step for each frame."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgebm.errors import DataError
from edgebm.runtime.session import Session
from edgebm.runtime.shape_hint import longer_axis
from edgebm.runtime.stream import Stream
from edgebm.spec import TensorSpec

Arrays = dict[str, NDArray[Any]]
_SHAPES = "give each input as [samples, time, ...], or each without the time axis"


@dataclass(frozen=True, slots=True)
class _Feed:
    """One array: whether its rows are samples of their own, and which axis is time, if one is."""

    array: NDArray[Any]
    by_row: bool
    time: int | None

    def samples(self) -> int:
        return len(self.array) if self.by_row else 1

    def steps(self) -> int:
        return 1 if self.time is None else self.array.shape[self.time]

    def frame(self, sample: int, step: int) -> NDArray[Any]:
        rows = self.array[sample : sample + 1] if self.by_row else self.array
        return rows if self.time is None else rows.take(step, axis=self.time)


def is_stream(session: Session, arrays: Mapping[str, NDArray[Any]]) -> bool:
    """Whether the model has states, and the arrays leave them out or have a time axis."""
    states = {state.input for state in session.states}
    timed = any(
        spec.name in arrays and arrays[spec.name].ndim == len(spec.shape) + 1
        for spec in session.inputs
        if spec.name not in states
    )
    return bool(states) and (timed or not states & arrays.keys())


def stream_through(session: Session, arrays: Arrays) -> tuple[Arrays, int]:
    """The outputs that are no state, and the number of steps.

    With a time axis they are [samples, time, ...], or [time, ...] for one sample and an output
    without a batch axis in front.

    Raises:
        DataError: the arrays have different numbers of samples or frames, or the time axis is
            where the model takes one step.
    """
    states = {state.input for state in session.states}
    given = {name: x for name, x in arrays.items() if name in states}
    rest = {name: x for name, x in arrays.items() if name not in states}
    with session.stream() as stream:
        _refuse_whole(stream, rest)
        feeds = _feeds(session, stream, rest)
        samples, steps = _count(feeds, rest)
        answers = []
        for sample in range(samples):
            stream.reset(_start(session, given, sample) if given else None)
            frames = ({n: f.frame(sample, t) for n, f in feeds.items()} for t in range(steps))
            answers.append([stream.step(frame) for frame in frames])
        timed = any(feed.time is not None for feed in feeds.values())
        joined = {}
        for spec in stream.outputs:
            found = [[y[spec.name] for y in each] for each in answers]
            joined[spec.name] = _join(
                found, spec.name, rows=_has_batch(session, spec), timed=timed
            )
    return joined, samples * steps


def _refuse_whole(stream: Stream, arrays: Arrays) -> None:
    """Sequences as the model took them before it was made streaming have no axis of their own."""
    for spec in stream.inputs:
        shape = arrays[spec.name].shape if spec.name in arrays else ()
        if len(shape) != len(spec.shape):
            continue
        sizes = tuple(zip(spec.shape, shape, strict=True))[1:]
        wanted = tuple(size if isinstance(dim, str) else dim for dim, size in sizes)
        axis = longer_axis((1, *wanted), (1, *shape[1:]), {})
        if axis is not None:
            steps, rest = shape[axis], ", ".join(map(str, spec.shape[1:]))
            cut = ", ".join(":" if at != axis + 1 else "None" for at in range(axis + 2))
            raise DataError(
                f"{spec.name} {list(shape)} holds {steps} steps where the model takes one",
                hint=f"give [samples, time, {rest}]: x[{cut}]",
            )


def _has_batch(session: Session, spec: TensorSpec) -> bool:
    """Whether the first axis is a batch: of size 1, or free and an axis of the states, too."""
    states = {state.input for state in session.states}
    shared = {d for s in session.inputs if s.name in states for d in s.shape if isinstance(d, str)}
    return bool(spec.shape) and (spec.shape[0] == 1 or spec.shape[0] in shared)


def _feeds(session: Session, stream: Stream, arrays: Arrays) -> dict[str, _Feed]:
    known = {spec.name: spec for spec in stream.inputs}
    feeds = {}
    for name, x in arrays.items():
        spec = known.get(name)
        if spec is None:  # for the step to refuse
            feeds[name] = _Feed(x, False, None)
            continue
        timed = x.ndim == len(spec.shape) + 1
        by_row = bool(spec.shape) and spec.shape[0] == 1 and x.ndim > 0
        feeds[name] = _Feed(x, by_row, int(_has_batch(session, spec)) if timed else None)
    return feeds


def _count(feeds: Mapping[str, _Feed], arrays: Arrays) -> tuple[int, int]:
    counts = {(feed.samples(), feed.steps(), feed.time is None) for feed in feeds.values()}
    shapes = ", ".join(f"{name} {list(x.shape)}" for name, x in arrays.items())
    if len(counts) > 1:
        raise DataError(f"the arrays differ in samples or frames: {shapes}", hint=_SHAPES)
    samples, steps, _ = counts.pop() if counts else (1, 1, True)
    if not samples * steps:
        raise DataError(f"there are no frames: {shapes}", hint=_SHAPES)
    return samples, steps


def _start(session: Session, given: Arrays, sample: int) -> Arrays:
    """The given states of one sample: with an axis more, each sample has states of its own."""
    ranks = {spec.name: len(spec.shape) for spec in session.inputs}
    try:
        return {n: x[sample] if x.ndim == ranks[n] + 1 else x for n, x in given.items()}
    except IndexError as cause:
        shapes = {name: list(x.shape) for name, x in given.items()}
        raise DataError(f"there are fewer states than samples: {shapes}", hint=_SHAPES) from cause


def _join(
    answers: Sequence[Sequence[NDArray[Any]]], name: str, *, rows: bool, timed: bool
) -> NDArray[Any]:
    try:
        each = [np.stack(a, axis=int(rows)) if timed else a[0] for a in answers]
        if len(each) == 1:
            return each[0]
        return np.concatenate(each) if rows else np.stack(each)
    except ValueError as cause:
        raise DataError(
            f"output {name!r} has another shape in each step",
            hint="run the samples one at a time, or use session.stream()",
        ) from cause
