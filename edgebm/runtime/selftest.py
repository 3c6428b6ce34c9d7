"""Re-run the golden samples: the same answers here as where the bundle was made?"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from edgebm.errors import SelfTestFailed
from edgebm.runtime.bundle import Bundle
from edgebm.spec import Variant

if TYPE_CHECKING:
    from edgebm.runtime.stream import Stream

Run = Callable[[Mapping[str, NDArray[Any]]], Mapping[str, NDArray[Any]]]
# For an output whose tolerance the writer did not state.
DEFAULT_TOLERANCE = 1e-2


def relative_error(got: NDArray[Any], golden: NDArray[Any]) -> float:
    """`norm(got - golden) / norm(golden)` over all elements.

    Arrays of any equal shape; another shape is infinitely wrong. Where the golden value is NaN or
    infinite the answer must be the same value. With a golden norm of zero it is `norm(got)`.
    """
    if got.shape != golden.shape:
        return float("inf")
    ours, theirs = got.astype(np.float64).ravel(), golden.astype(np.float64).ravel()
    finite = np.isfinite(theirs)
    if not np.array_equal(ours[~finite], theirs[~finite], equal_nan=True):
        return float("inf")
    ours, theirs = ours[finite], theirs[finite]
    if not np.isfinite(ours).all():
        return float("inf")
    norm = float(np.linalg.norm(theirs))
    return float(np.linalg.norm(ours - theirs)) / (norm if norm > 0 else 1.0)


def self_test(bundle: Bundle, variant: Variant, run: Run) -> dict[str, float]:
    """The worst relative error of each output over all golden samples.

    Raises:
        SelfTestFailed: an output is beyond its tolerance; lists each one with both figures.
    """
    manifest = bundle.manifest
    worst: dict[str, float] = {}
    for index in range(manifest.golden):
        inputs, outputs = bundle.golden(index)
        got = run({spec.name: x for spec, x in zip(manifest.inputs, inputs, strict=True)})
        for spec, golden in zip(manifest.outputs, outputs, strict=True):
            error = relative_error(got[spec.name], golden)
            worst[spec.name] = max(error, worst.get(spec.name, 0.0))
    _judge(worst, variant, bundle.path, "gives other answers here than where it was made")
    return worst


def stream_test(
    bundle: Bundle, variant: Variant, run: Run, open_stream: Callable[[], Stream]
) -> dict[str, float]:
    """Step through golden samples that follow each other; {} if they do not.

    Every step must answer as `run` does with the same states handed on. Returned is the worst
    relative error of each output that is no state against the golden one, a figure for people:
    errors add up over the steps, and no tolerance was stored for that.

    Raises:
        SelfTestFailed: the stream gives other answers than `run`.
    """
    samples = [_Sample(bundle, index) for index in range(bundle.manifest.golden)]
    pairs = list(itertools.pairwise(samples))
    if not pairs or not bundle.manifest.states or not all(_follows(variant, *p) for p in pairs):
        return {}
    worst: dict[str, float] = {}
    drift: dict[str, float] = {}
    with open_stream() as stream:
        states = samples[0].states
        stream.reset(states)
        for sample in samples:
            got = stream.step(sample.frame)
            ran = run({**sample.frame, **states})
            for name, y in got.items():
                worst[name] = max(worst.get(name, 0.0), relative_error(y, ran[name]))
                error = relative_error(y, sample.outputs[name])
                drift[name] = max(drift.get(name, 0.0), error)
            states = {state.input: ran[state.output] for state in bundle.manifest.states}
        ends = stream.states
    for state in bundle.manifest.states:
        worst[state.output] = relative_error(ends[state.input], states[state.input])
    _judge(worst, variant, bundle.path, "gives other answers in a stream than call by call")
    return drift


class _Sample:
    """A golden sample with its states apart from the rest of its inputs."""

    def __init__(self, bundle: Bundle, index: int) -> None:
        manifest = bundle.manifest
        inputs, outputs = bundle.golden(index)
        fed = {state.input: state.output for state in manifest.states}
        named = {spec.name: x for spec, x in zip(manifest.inputs, inputs, strict=True)}
        self.frame = {name: x for name, x in named.items() if name not in fed}
        self.states = {name: x for name, x in named.items() if name in fed}
        self.outputs = {spec.name: y for spec, y in zip(manifest.outputs, outputs, strict=True)}
        self.pairs = [(self.states[name], self.outputs[made], made) for name, made in fed.items()]


def _follows(variant: Variant, one: _Sample, other: _Sample) -> bool:
    """Whether the states that go into `other` are those that come out of `one`."""
    return all(
        relative_error(taken, made) <= tolerance(variant, output)
        for (_, made, output), (taken, _, _) in zip(one.pairs, other.pairs, strict=True)
    )


def _judge(worst: Mapping[str, float], variant: Variant, where: str, what: str) -> None:
    limits = {name: tolerance(variant, name) for name in worst}
    over: Sequence[str] = [name for name in worst if not worst[name] <= limits[name]]
    if over:
        figures = [f"{name} is off by {worst[name]:.3g} of {limits[name]:.3g}" for name in over]
        raise SelfTestFailed(
            f"{where}: {variant.target}/{variant.runtime} {what}: {', '.join(figures)}",
            hint="compress for this processor, or update the runtime package",
            details={"errors": dict(worst), "tolerance": limits},
        )


def tolerance(variant: Variant, output: str) -> float:
    """The largest relative error allowed for `output`."""
    return variant.tolerance.get(output, DEFAULT_TOLERANCE)
