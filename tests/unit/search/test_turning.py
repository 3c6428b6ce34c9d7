"""Timed before it is trained: which races are worth a minute of training."""

from __future__ import annotations

from dataclasses import replace

import pytest
from tiny_models import FRAMES, recurrent, short_recipe

from edgebm.runtime.journal import Journal
from edgebm.search.candidates import Artifact, Candidate
from edgebm.search.job import Options
from edgebm.search.prepare import prepare
from edgebm.search.race import Race
from edgebm.search.records import Records
from edgebm.search.turning import settle, untrained, waiting, why_not_train
from edgebm.spec import EngineConfig


@pytest.fixture
def race() -> Race:
    job = prepare(recurrent(), short_recipe(), Options(), data=FRAMES)
    artifacts = [
        Artifact("openvino", "float", {}, job.model),
        Artifact("onnxruntime", "int8-cells", {}, job.model),
        Artifact("openvino", "int8-reset-before", {}, job.model, promise=True),
        Artifact("openvino", "int8", {}, job.model, promise=True),
    ]
    candidates = [Candidate(a, EngineConfig(threads=1)) for a in artifacts]
    made = Race(candidates, Records(Journal(), job.face, job.sample()), {})
    times = (2.0, 1.5, 1.0, 0.5)
    for candidate, ms in zip(candidates, times, strict=True):
        made.results[candidate.id].turns_ms.append(ms)
    return made


def timed(race: Race, kind: str, ms: float) -> None:
    key = next(c.id for c in race.candidates if c.artifact.kind == kind)
    race.results[key].turns_ms[:] = [ms]


def test_only_what_waits_for_training_is_seen(race: Race) -> None:
    assert [c.artifact.kind for c in waiting(race)] == ["int8-reset-before"]


def test_training_pays_where_nothing_is_as_fast(race: Race) -> None:
    timed(race, "int8", 9.0)  # of made-up ranges: never taken, and here it is slow
    assert why_not_train(race) == ""
    timed(race, "int8-cells", 0.8)
    assert why_not_train(race).endswith("it takes 1 ms, onnxruntime/int8-cells/t1 0.8 ms")


def test_a_form_that_fails_is_not_trained(race: Race) -> None:
    (candidate,) = waiting(race)
    race.results[candidate.id].failed = "it crashed"
    assert why_not_train(race).endswith("it does not run here")


def test_the_trained_takes_the_place_and_the_times(race: Race) -> None:
    (candidate,) = waiting(race)
    trained = replace(candidate.artifact, promise=False, files={"model.xml": b"x"})
    (fresh,) = settle(race, [trained])
    assert fresh.id == candidate.id
    assert fresh.artifact is trained
    assert [c.artifact.kind for c in race.candidates][2] == "int8-reset-before"
    assert race.results[fresh.id].p50_ms == 1.0
    assert waiting(race) == []


def test_without_training_nothing_of_it_is_left(race: Race) -> None:
    (candidate,) = waiting(race)
    assert settle(race, []) == []
    assert candidate.id not in race.results
    assert candidate not in race.candidates
    assert len(race.candidates) == 3


def test_the_untrained_copy_has_the_other_form_and_integers() -> None:
    pytest.importorskip("torch")
    job = prepare(recurrent(), short_recipe(), Options(), data=FRAMES)
    made = untrained(job, job.model)
    assert made is not None
    forms = [
        next(iter(model.nodes("GRU"))).attributes.get_int("linear_before_reset", 0)
        for model in (job.model, made)
    ]
    assert forms == [1, 0]
    ignoring = prepare(recurrent(), short_recipe(), Options(ignored=("gru",)), data=FRAMES)
    assert untrained(ignoring, ignoring.model) is None
    assert (
        untrained(prepare(recurrent(), short_recipe("fp32"), Options(), data=FRAMES), made) is None
    )
