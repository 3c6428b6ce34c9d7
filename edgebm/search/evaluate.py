"""Score one thing that can be run: a bundle, or a model file in float."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from edgebm.data.batch import Feeds
from edgebm.data.classes import Assessment
from edgebm.data.evaluation import resolve_evaluation
from edgebm.data.fit import raise_faults
from edgebm.data.label_checks import LABEL_HINT, label_faults, label_warnings
from edgebm.data.metrics import default_metric, resolve_metric
from edgebm.data.samples import Samples, open_samples
from edgebm.data.steps import Steps
from edgebm.data.texts import Texts
from edgebm.errors import DataError, UsageError
from edgebm.exec.carry import States, carried
from edgebm.exec.collect import float_run
from edgebm.importers import import_model
from edgebm.ir.model import Model
from edgebm.ir.states import StatePair
from edgebm.runtime.bundle import Bundle, read_bundle
from edgebm.runtime.npy import read_npy
from edgebm.runtime.session import load
from edgebm.search.build import build_float
from edgebm.search.candidates import Candidate, Face
from edgebm.search.input_scale import scale_warnings
from edgebm.search.judge import Run, ticking
from edgebm.search.runner import Runner
from edgebm.search.stateful import Settled, Wanted, settle_states, view_of, with_axes
from edgebm.spec import EngineConfig

Progress = Callable[[str, int, int], None]
_BUNDLE = ".edgebm"


@dataclass(frozen=True, slots=True)
class Scorable:
    """Something with the face of a model that answers calls.

    `what` says what really runs; `model` is the graph, None for a bundle.
    """

    face: Face
    run: Run
    what: dict[str, Any]
    model: Model | None = None
    states: States = field(default_factory=lambda: States((), ()))

    @property
    def call(self) -> Run:
        """`run` with sequences, where there is a state to carry."""
        return carried(self.run, self.states) if self.states.pairs else self.run


@contextmanager
def open_scorable(
    model: str | os.PathLike[str] | object, wanted: Wanted | None = None
) -> Iterator[Scorable]:
    """A bundle as its session runs it; anything else imported, in f32 on ONNX Runtime."""
    wanted = wanted or Wanted()
    if isinstance(model, (str, os.PathLike)) and Path(model).suffix == _BUNDLE:
        if wanted != Wanted():
            raise UsageError("--state is for model files: a bundle knows its states")
        bundle = read_bundle(model)
        with load(model) as session:
            report = session.report()
            what = {key: report[key] for key in ("runtime", "precision", "threads")}
            face = Face(session.inputs, session.outputs)
            yield Scorable(face, _session_run(session.run), what, None, _bundle_states(bundle))
        return
    imported = import_model(os.fspath(model) if isinstance(model, os.PathLike) else model)
    settled = settle_states(imported, wanted)
    candidate = Candidate(build_float(settled.model, "onnxruntime"), EngineConfig())
    with Runner(candidate, settled.face) as runner:
        what = {"runtime": "onnxruntime", "precision": "f32", "threads": 1}
        yield Scorable(settled.face, runner.run, what, settled.model, settled.states)


def _bundle_states(bundle: Bundle) -> States:
    manifest = bundle.manifest
    initial = {
        state.input: read_npy(bytes(bundle.members[state.initial]), state.initial)
        for state in manifest.states
        if state.initial
    }
    pairs = tuple(StatePair(state.input, state.output) for state in manifest.states)
    states = States(manifest.inputs, pairs, initial)
    axes: Mapping[str, tuple[int, int]] = manifest.axes
    return replace(states, axes={dim: axes[dim] for dim in states.growing})


def _session_run(run: Callable[..., Any]) -> Run:
    def call(feeds: Feeds) -> Feeds:
        answer: Feeds = run(dict(feeds))
        return answer

    return call


def score_samples(
    scorable: Scorable,
    data: object,
    labels: object,
    metric: object,
    program: object,
    progress: Progress,
) -> dict[str, Any]:
    """The score as a dict of plain values; see `edgebm.verbs.evaluate`."""
    if program is not None:
        judge = resolve_evaluation(program)  # type: ignore[arg-type]
        value, values = judge.compute(scorable.call)
        found: dict[str, Any] = {"value": value, "values": values, "samples": None}
        return {**_named(judge), **found, **scorable.what, "classes": None, "warnings": []}
    if data is None:
        raise DataError("there is nothing to evaluate on", hint="give samples with -d")
    steps = Steps(scorable.states.names)
    texts = Texts().beside(scorable.model.source) if scorable.model is not None else None
    with open_samples(
        data, scorable.face.inputs, labels=labels, texts=texts, steps=steps
    ) as samples:
        known = samples.labels
        if known is None:
            raise DataError(
                "the samples have no labels",
                hint="add an array called labels to the .npz, or give an --eval program",
            )
        scorable = _with_axes(scorable, samples)
        view = view_of(scorable.face, scorable.states, samples, known)
        chosen = (
            default_metric(view.face, known) if metric is None else resolve_metric(metric)  # type: ignore[arg-type]
        )
        faces = view.face
        raise_faults(samples.source, [*label_faults(chosen, faces, known)], LABEL_HINT)
        warnings = [*samples.warnings, *label_warnings(chosen, faces, known)]
        if scorable.model is not None and not scorable.states.pairs:
            warnings += scale_warnings(scorable.model, samples)
        total = len(samples)
        outputs = ticking(
            scorable.call,
            samples.feeds(),
            total,
            lambda done, count: progress("evaluate", done, count),
        )
        assessed = chosen.assess(map(view.measured, outputs), known)
    doubt = assessed.doubt("the model")
    return {
        **_named(chosen),
        "value": assessed.value,
        "samples": total,
        **scorable.what,
        "classes": _classes(assessed),
        "warnings": [*warnings, *([doubt] if doubt else [])],
    }


def _with_axes(scorable: Scorable, samples: Samples) -> Scorable:
    """Sizes of growing caches, which only a bundle knows already."""
    if scorable.model is None or not scorable.states.growing:
        return scorable
    settled = Settled(scorable.model, scorable.face, scorable.states)
    return replace(scorable, states=with_axes(settled, float_run(scorable.model), samples, {}))


def _classes(assessed: Assessment) -> dict[str, Any] | None:
    """The figure of each class and the lowest one; None where the metric has no classes."""
    rated = assessed.classes
    if rated is None:
        return None
    lowest = rated.worst()
    return {
        "measure": rated.measure,
        "labels": [str(label) for label in rated.labels],
        "counts": list(rated.counts),
        "values": list(rated.values),
        "worst": {"class": str(rated.labels[lowest]), "value": rated.values[lowest]},
    }


def _named(judge: Any) -> dict[str, Any]:
    return {
        "metric": judge.name,
        "unit": judge.unit,
        "higher_is_better": judge.higher_is_better,
    }
