"""Who judges candidates: a metric, the agreement with the float model, or the user's program."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from numpy.typing import NDArray

from edgebm.data.callables import is_reference
from edgebm.data.evaluation import max_drop_warning, resolve_evaluation
from edgebm.data.label_checks import label_faults, label_warnings
from edgebm.data.metrics import default_metric, resolve_metric
from edgebm.data.over_time import View
from edgebm.data.samples import Samples
from edgebm.errors import DataError, UsageError
from edgebm.exec.carry import States
from edgebm.search.candidates import Face
from edgebm.search.judge import DEMANDS, AgreementJudge, EvaluationJudge, Judge, MetricJudge, Run
from edgebm.search.stateful import view_of


@dataclass(frozen=True, slots=True)
class Asked:
    """What is to be judged: answers of a model with this face, on these samples.

    `accuracy` names the demand of the recipe.
    """

    face: Face
    states: States
    samples: Samples
    max_drop: float | None
    accuracy: str

    def view(self, labels: NDArray[Any] | None) -> View:
        """What the judge sees of answers."""
        return view_of(self.face, self.states, self.samples, labels)


def is_program(evaluation: object) -> bool:
    """`module:function` and callables judge by themselves; paths and arrays are samples."""
    if isinstance(evaluation, str):
        return is_reference(evaluation)
    return callable(evaluation)


def judge_factory(
    asked: Asked, metric: object, program: Any, warnings: list[str], faults: list[str]
) -> Callable[[Run], Judge]:
    """Who judges; `warnings` and `faults` take what is odd or wrong about the labels.

    Raises:
        UsageError, DataError: metric, program and labels do not go together.
    """
    samples, max_drop, demand = asked.samples, asked.max_drop, DEMANDS[asked.accuracy]
    if program is not None:
        if metric is not None:
            raise UsageError(
                "--metric and an --eval program are both given", hint="the program is the metric"
            )
        evaluation = resolve_evaluation(program)
        warnings += _said(max_drop_warning(evaluation, max_drop) if max_drop is not None else "")
        view = asked.view(None)
        return lambda run: EvaluationJudge(evaluation, run, samples, max_drop, demand, view)
    if not samples.has_labels:
        if metric is not None:
            raise DataError(
                "--metric needs labels, and the samples have none",
                hint="add an array called labels to the .npz, or leave --metric out to compare "
                "with the float model",
            )
        if max_drop is not None:
            warnings.append("--max-drop is ignored: without labels the quality floor decides")
        view = asked.view(None)
        return lambda run: AgreementJudge(run, samples, demand, view)
    labels = samples.labels
    assert labels is not None
    view = asked.view(labels)
    chosen = default_metric(view.face, labels) if metric is None else None
    found = chosen or resolve_metric(metric)  # type: ignore[arg-type]
    warnings += _said(max_drop_warning(found, max_drop) if max_drop is not None else "")
    faults += label_faults(found, view.face, labels)
    warnings += label_warnings(found, view.face, labels)
    return lambda run: MetricJudge(found, run, samples, max_drop, demand, view)


def _said(sentence: str) -> list[str]:
    return [sentence] if sentence else []
