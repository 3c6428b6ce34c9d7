"""Scores of candidates: each is computed once, in this run or in one before."""

from __future__ import annotations

import hashlib
import inspect
from collections.abc import Callable, Mapping
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np

from edgebm.data.agreement import Agreement, OutputAgreement
from edgebm.data.classes import Assessment, Chance, Classes
from edgebm.data.samples import Samples
from edgebm.data.significance import NOT_JUDGED
from edgebm.errors import BackendError, BackendFailed, ResourceError
from edgebm.search.candidates import Candidate
from edgebm.search.deadline import Deadline
from edgebm.search.judge import AgreementJudge, EvaluationJudge, Judge, MetricJudge, Score
from edgebm.search.records import Records

Parts = dict[str, Any]


class Scores:
    """Called with a candidate, gives its score; None when it is not known and time is over.

    `known` holds what was scored so far, by `Candidate.answers_id`; `lacking` says that some
    score was wanted when time was over.
    """

    def __init__(
        self,
        score: Callable[[Candidate], Score],
        judged: Parts | None,
        records: Records,
        deadline: Deadline,
    ) -> None:
        """`judged` is what decides a score (`judged_by`); None: scores are not kept."""
        self.known: dict[str, Score] = {}
        self.lacking = False
        self._failed: dict[str, str] = {}
        self._score, self._judged = score, judged
        self._records, self._deadline = records, deadline

    def __call__(self, candidate: Candidate) -> Score | None:
        """The score of what `candidate` answers.

        Raises:
            BackendError: its runtime fails on the samples.
            OutOfTime: time was over while it was scored.
        """
        key = candidate.answers_id
        if key not in self.known and key not in self._failed:
            self._recall(candidate)
        if key in self._failed:
            raise BackendFailed(self._failed[key])
        if key not in self.known and self._deadline.over:
            self.lacking = True
        elif key not in self.known:
            self._compute(candidate)
        return self.known.get(key)

    def _recall(self, candidate: Candidate) -> None:
        if self._judged is None:
            return
        found = self._records.find("score", _answering(candidate), judged=self._judged)
        if found is not None and "failed" in found:
            self._failed[candidate.answers_id] = found["failed"]
        elif found is not None:
            self.known[candidate.answers_id] = score_from_json(found)

    def _compute(self, candidate: Candidate) -> None:
        try:
            score = self._score(candidate)
        except ResourceError:
            raise  # another day there may be more memory
        except BackendError as error:
            self._failed[candidate.answers_id] = str(error)
            self._keep(candidate, {"failed": str(error)})
            raise
        self.known[candidate.answers_id] = score
        self._keep(candidate, score_to_json(score))

    def _keep(self, candidate: Candidate, value: Parts) -> None:
        if self._judged is not None:
            self._records.keep("score", _answering(candidate), value, judged=self._judged)


def _answering(candidate: Candidate) -> Candidate:
    """The thread count does not matter to an answer."""
    return replace(candidate, config=replace(candidate.config, threads=0))


def judged_by(
    judge: Judge, samples: Samples, reference: Parts, more: Parts | None = None
) -> Parts | None:
    """What decides a score, but for the candidate; None where that cannot be told.

    A user's own function is known by its source file. What it reads besides, or imports, is not.

    Args:
        judge: as built for the job.
        samples: those it judges on, labels included.
        reference: `Records.parts` of the float model.
        more: what else decides it, in JSON types: how a state is carried.
    """
    parts: Parts = {"samples": samples.digest(), "reference": reference, "judge": judge.name}
    parts |= more or {}
    function = None
    if isinstance(judge, MetricJudge):
        parts["output"] = judge.metric.output
        function = judge.metric.function
    elif isinstance(judge, EvaluationJudge):
        function = judge.evaluation.function
    elif not isinstance(judge, AgreementJudge):
        return None
    if function is not None:
        source = source_sha256(function)
        return None if source is None else {**parts, "source": source}
    return parts


def source_sha256(function: Callable[..., Any]) -> str | None:
    """Hash of a function's name and source file; None where they do not settle what it does.

    They do not for objects, bound methods and closures, which hold values of their own.
    """
    if not inspect.isfunction(function) or function.__closure__ or function.__defaults__:
        return None
    try:
        content = Path(inspect.getsourcefile(function) or "").read_bytes()
    except (OSError, TypeError):
        return None
    place = f"{function.__qualname__}:{function.__code__.co_firstlineno}:".encode()
    return hashlib.sha256(place + content).hexdigest()


# One character for each verdict, so that those of ten thousand samples are one short line.
_VERDICTS = {NOT_JUDGED: "-", 0: "0", 1: "1"}


def score_to_json(score: Score) -> Parts:
    """`score` in JSON types."""
    raw: Parts = {"value": score.value, "agreement": asdict(score.agreement)}
    found = score.assessment
    if found is not None:
        raw["assessment"] = {
            "value": found.value,
            "classes": None if found.classes is None else asdict(found.classes),
            "verdicts": None
            if found.verdicts is None
            else "".join(_VERDICTS[int(verdict)] for verdict in found.verdicts),
            "chance": None if found.chance is None else asdict(found.chance),
        }
    return raw


def score_from_json(raw: Mapping[str, Any]) -> Score:
    """The inverse of `score_to_json`."""
    outputs = {name: OutputAgreement(**each) for name, each in raw["agreement"]["outputs"].items()}
    drift = raw["agreement"].get("drift_db")
    agreed = Agreement(
        outputs, raw["agreement"]["samples"], None if drift is None else tuple(drift)
    )
    found = raw.get("assessment")
    return Score(raw["value"], agreed, None if found is None else _assessment(found))


def _assessment(raw: Mapping[str, Any]) -> Assessment:
    classes, verdicts, chance = raw["classes"], raw["verdicts"], raw["chance"]
    known = {text: verdict for verdict, text in _VERDICTS.items()}
    return Assessment(
        raw["value"],
        None
        if classes is None
        else Classes(
            classes["measure"],
            *(tuple(classes[key]) for key in ("labels", "counts", "values")),
        ),
        None if verdicts is None else np.array([known[text] for text in verdicts], np.int8),
        None if chance is None else Chance(**chance),
    )
