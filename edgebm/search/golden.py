"""Golden samples: a few inputs with their answers that travel in the bundle, and how exact."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgebm.data.batch import Feeds
from edgebm.exec.carry import walk
from edgebm.runtime.selftest import relative_error
from edgebm.search.candidates import Candidate
from edgebm.search.found import Found
from edgebm.search.job import Job
from edgebm.search.runner import Runner
from edgebm.search.simulate import provable

_COUNT = 4
_BYTES = 4 << 20
# Another CPU of the same kind sums in another order; a wrong kernel is wrong by far more.
_TOLERANCE_FACTOR, _SMALLEST_TOLERANCE = 2.0, 1e-3
# A GPU was only simulated. It may sum in FP16, and no two builds of an engine take the same
# kernels.
_GPU_FACTOR, _GPU_SMALLEST = 4.0, 2e-2
Arrays = list[NDArray[Any]]


@dataclass(frozen=True, slots=True)
class Golden:
    """Samples that travel in the bundle: `inputs[i][k]`, `outputs[i][k]` of the float model.

    Of a model with state they are the first steps of one sequence, and the states among the
    inputs are those of the chosen artifact: its state outputs for sample i are the state inputs
    of sample i + 1.
    """

    inputs: list[Arrays]
    outputs: list[Arrays]


def golden_samples(job: Job, found: Found) -> Golden:
    """A few evaluation samples with the float model's answers; at least one, at most 4 MiB."""
    golden, size = Golden([], []), 0
    baseline = provable(found.choice.baseline.candidate, found.target)
    with Runner(baseline, job.face) as runner:
        for feeds in _steps(job, found) if job.states.pairs else job.evaluation.feeds(0, _COUNT):
            answers = runner.run(feeds)
            inputs = [np.asarray(feeds[spec.name]) for spec in job.face.inputs]
            outputs = [answers[spec.name] for spec in job.face.outputs]
            size += sum(array.nbytes for array in (*inputs, *outputs))
            if golden.inputs and size > _BYTES:
                break
            golden.inputs.append(inputs)
            golden.outputs.append(outputs)
    return golden


def _steps(job: Job, found: Found) -> Iterator[Feeds]:
    """Consecutive steps, with the states that the chosen artifact has there."""
    with Runner(found.provable, job.face) as chosen:
        for arrays, _ in walk(chosen.run, job.states, _first_sequence(job)):
            yield arrays


def _first_sequence(job: Job) -> Feeds:
    """Up to four steps [T, ...] of the first sequence; single steps are put one behind another."""
    states = job.states.names
    first, *rest = job.evaluation.feeds(0, 1 if job.evaluation.sequences else _COUNT)
    given = {key: array for key, array in first.items() if key in states}
    fed = {key: array for key, array in first.items() if key not in states}
    if job.evaluation.sequences:
        return {**given, **{key: array[:_COUNT] for key, array in fed.items()}}
    alike = [each for each in rest if all(each[key].shape == fed[key].shape for key in fed)]
    return {**given, **{key: np.stack([a, *(e[key] for e in alike)]) for key, a in fed.items()}}


def golden_errors(job: Job, candidate: Candidate, golden: Golden) -> dict[str, float]:
    """The worst relative error of each output over the golden samples.

    Raises:
        BackendError: its runtime fails.
    """
    worst = {spec.name: 0.0 for spec in job.face.outputs}
    with Runner(candidate, job.face) as runner:
        for inputs, outputs in zip(golden.inputs, golden.outputs, strict=True):
            feeds = {s.name: x for s, x in zip(job.face.inputs, inputs, strict=True)}
            got = runner.run(feeds)
            for spec, want in zip(job.face.outputs, outputs, strict=True):
                worst[spec.name] = max(worst[spec.name], relative_error(got[spec.name], want))
    return worst


def tolerances(errors: Mapping[str, float], *, gpu: bool = False) -> dict[str, float]:
    """What a device may be off: twice the worst relative error of each output here.

    On a GPU, where that error was simulated, four times.
    """
    factor, least = (_TOLERANCE_FACTOR, _SMALLEST_TOLERANCE)
    if gpu:
        factor, least = _GPU_FACTOR, _GPU_SMALLEST
    return {name: max(least, factor * error) for name, error in errors.items()}
