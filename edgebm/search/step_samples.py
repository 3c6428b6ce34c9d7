"""Samples of models with state as single steps, with the states of the float model."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from edgebm.data.batch import Feeds
from edgebm.data.samples import Samples, kept_samples, open_samples
from edgebm.data.steps import Steps
from edgebm.exec.carry import States, walk
from edgebm.exec.collect import float_run
from edgebm.ir.model import Model
from edgebm.search.candidates import Face
from edgebm.search.made_up import made_up_samples
from edgebm.search.shapes import ShapeLists

CALIBRATION_STEPS = 1024
"""No more steps calibrate, however many there are: the sequences share them."""
_RUN_STEPS = 20_000  # of the float model, to have its states
_CALLS, _CALL_SEQUENCES = 64, 8
_MADE_UP_STEPS = 4
_GOLDEN_RATIO = 0.6180339887498949


def first_step(samples: Samples, states: States) -> Feeds:
    """What is fed at the first step of the first sample; no states."""
    feeds = next(iter(samples.feeds(0, 1)))
    fed = {key: array for key, array in feeds.items() if key not in states.names}
    return {key: array[0] for key, array in fed.items()} if samples.sequences else fed


def made_up_sequences(
    model: Model, face: Face, states: States, listed: ShapeLists, like: Samples | None, seed: int
) -> Samples:
    """Sequences that the model accepts; see `made_up_samples`."""
    fed = tuple(spec for spec in face.inputs if spec.name not in states.names)
    shapes = None
    if like is not None:
        shapes = {key: array.shape for key, array in first_step(like, states).items()}
    wanted = {key: value for key, value in listed.items() if key not in states.names}
    steps = made_up_samples(model, Face(fed, face.outputs), wanted, shapes, seed)
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
    """`share` of `length` steps: one of each equal stretch, and where there are two the last.

    `index`, the number of the sequence, moves them along, so that together the sequences cover
    all times.
    """
    if length <= share:
        return frozenset(range(length))
    part = (index + 1) * _GOLDEN_RATIO % 1.0
    if share == 1:
        return frozenset({int(part * length)})
    stretch = (length - 1) / (share - 1)
    return frozenset({*(int((k + part) * stretch) for k in range(share - 1)), length - 1})
