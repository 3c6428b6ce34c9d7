"""Scores: computed once, kept where they can be told from others, and None without time."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from graphs import face, random_model
from hypothesis import given
from hypothesis import strategies as st

from edgebm.data.agreement import Agreement, OutputAgreement
from edgebm.data.evaluation import resolve_evaluation
from edgebm.data.metrics import resolve_metric
from edgebm.data.samples import Samples, open_samples
from edgebm.errors import BackendFailed, ResourceError
from edgebm.runtime.journal import Journal
from edgebm.search.candidates import Artifact, Candidate
from edgebm.search.deadline import Deadline
from edgebm.search.judge import AgreementJudge, EvaluationJudge, MetricJudge, Score
from edgebm.search.records import Records
from edgebm.search.scores import (
    Scores,
    judged_by,
    score_from_json,
    score_to_json,
    source_sha256,
)
from edgebm.spec import EngineConfig

MODEL = random_model("g (float[1,8] x) => (float[1,4] y) { y = MatMul(x, w) }", w=(8, 4))
X = np.random.default_rng(0).normal(size=(4, 8)).astype(np.float32)
FEEDS = {"x": X[:1]}
JUDGED = {"judge": "top1"}


def labelled(*labels: int) -> Samples:
    return open_samples({"x": X, "labels": np.array(labels)}, face(MODEL).inputs)


SAMPLES = labelled(0, 1, 2, 3)


def one(threads: int = 1, content: bytes = b"a", kind: str = "int8") -> Candidate:
    artifact = Artifact("onnxruntime", kind, {"model.onnx": content}, MODEL)
    return Candidate(artifact, EngineConfig(threads=threads))


def value(found: Score | None) -> float | None:
    assert found is not None
    return found.value


class World:
    """A scorer that counts, with or without a fault."""

    def __init__(self, journal: Journal, judged: dict[str, object] | None = JUDGED) -> None:
        self.asked: list[str] = []
        self.fault: Exception | None = None
        self.deadline = Deadline()
        records = Records(journal, face(MODEL), FEEDS)
        self.scores = Scores(self.score, judged, records, self.deadline)

    def score(self, candidate: Candidate) -> Score:
        self.asked.append(candidate.id)
        if self.fault is not None:
            raise self.fault
        return Score(90.0 + len(self.asked), Agreement({}, 4))


def test_a_score_is_computed_once_for_all_thread_counts() -> None:
    journal = Journal()
    world, again = World(journal), World(journal)
    assert value(world.scores(one())) == value(world.scores(one(threads=2))) == 91.0
    assert value(again.scores(one(threads=2))) == 91.0
    assert (len(world.asked), len(again.asked)) == (1, 0)


def test_other_bytes_or_another_judge_have_another_score() -> None:
    journal = Journal()
    World(journal).scores(one())
    other, judge = World(journal), World(journal, {"judge": "top5"})
    other.scores(one(content=b"b"))
    judge.scores(one())
    assert len(other.asked) == len(judge.asked) == 1


def test_without_a_key_nothing_is_kept() -> None:
    journal = Journal()
    World(journal, None).scores(one())
    again = World(journal, None)
    again.scores(one())
    assert again.asked
    assert journal.count == 0


def test_without_time_only_what_is_known_is_told() -> None:
    journal = Journal()
    World(journal).scores(one())
    late = World(journal)
    late.deadline.interrupt()
    assert value(late.scores(one())) == 91.0
    assert not late.scores.lacking
    assert late.scores(one(content=b"b", kind="w8")) is None
    assert late.scores.lacking
    assert late.asked == []


def test_a_failure_is_kept_but_not_a_lack_of_memory() -> None:
    journal = Journal()
    for fault, again in ((ResourceError("no memory"), 1), (BackendFailed("no kernel"), 0)):
        first, second = World(journal), World(journal)
        first.fault = second.fault = fault
        for world in (first, second):
            with pytest.raises(type(fault), match=str(fault)):
                world.scores(one())
        assert (len(first.asked), len(second.asked)) == (1, again)


numbers = st.none() | st.floats(-150, 150)


@given(numbers, st.floats(-150, 150), numbers, st.text())
def test_a_score_survives_json(
    metric: float | None, sqnr: float, top1: float | None, fault: str
) -> None:
    outputs = {"y": OutputAgreement(sqnr, top1=top1, fault=fault)}
    score = Score(metric, Agreement(outputs, 7))
    assert score_from_json(score_to_json(score)) == score


def plain(outputs: object, labels: object) -> float:
    return 1.0


def run(feeds: object) -> dict[str, np.ndarray]:
    return {}


def test_what_decides_a_score() -> None:
    agreement = AgreementJudge(run, SAMPLES)
    top1 = MetricJudge(resolve_metric("top1"), run, SAMPLES, None)
    top5 = MetricJudge(resolve_metric("top5"), run, SAMPLES, 3.0)
    own = MetricJudge(resolve_metric(plain), run, SAMPLES, None)
    program = EvaluationJudge(resolve_evaluation(plain), run, SAMPLES, None)
    other = labelled(0, 1, 2, 2)
    keys = [judged_by(each, SAMPLES, {}) for each in (agreement, top1, top5, own)]
    keys += [judged_by(top1, other, {}), judged_by(top1, SAMPLES, {"artifact": "b"})]
    assert None not in keys
    assert all(a != b for k, a in enumerate(keys) for b in keys[:k])
    limit = MetricJudge(resolve_metric("top1"), run, SAMPLES, 9.0)
    assert judged_by(limit, SAMPLES, {}) == keys[1], "the limit does not change the score"
    assert judged_by(program, SAMPLES, {}) is not None


def test_a_function_is_known_by_its_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from edgebm.data.callables import load_callable

    file = tmp_path / "own.py"
    file.write_text("def f(run):\n    return 1.0\n\ndef g(run):\n    return 2.0\n")
    first = source_sha256(load_callable(f"{file}:f"))
    assert first is not None
    assert source_sha256(load_callable(f"{file}:f")) == first
    assert source_sha256(load_callable(f"{file}:g")) != first
    file.write_text(file.read_text().replace("1.0", "1.5"))
    assert source_sha256(load_callable(f"{file}:f")) != first


def test_what_holds_values_of_its_own_is_not_known() -> None:
    held = 2.0

    def closure(run: object) -> float:
        return held

    class Judge:
        def __call__(self, run: object) -> float:
            return held

        def method(self, run: object) -> float:
            return held

    made: dict[str, object] = {}
    exec("def typed(run): return 1.0", made)
    for each in (closure, Judge(), Judge().method, made["typed"], lambda run, k=held: k):
        assert source_sha256(each) is None  # type: ignore[arg-type]
