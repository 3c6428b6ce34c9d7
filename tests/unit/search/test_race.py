"""Turns, drops and failures. Real engines on a tiny graph; no time is asserted."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
from graphs import face, random_model, samples

from edgebm.runtime import turns as turns_module
from edgebm.runtime.journal import Journal
from edgebm.runtime.turns import TURNS, Measurement
from edgebm.search import records as records_module
from edgebm.search.build import build_float
from edgebm.search.candidates import Artifact, Candidate
from edgebm.search.deadline import Deadline, OutOfTime
from edgebm.search.race import Race
from edgebm.search.records import Records
from edgebm.search.runner import Runner
from edgebm.spec import EngineConfig

MODEL = random_model("g (float[1,8] x) => (float[1,4] y) { y = MatMul(x, w) }", w=(8, 4))
FEEDS = next(iter(samples(MODEL, 1).feeds()))


def candidates() -> list[Candidate]:
    good = build_float(MODEL, "onnxruntime")
    return [Candidate(good, EngineConfig(threads=t)) for t in (1, 2)]


def broken() -> Candidate:
    return Candidate(
        Artifact("onnxruntime", "int8", {"model.onnx": b"no model"}, MODEL), EngineConfig()
    )


def race(
    entries: Sequence[Candidate], journal: Journal | None = None, deadline: Deadline | None = None
) -> Race:
    records = Records(Journal() if journal is None else journal, face(MODEL), FEEDS)
    return Race(entries, records, {}, deadline)


def test_at_least_two_turns_whatever_the_budget() -> None:
    told: list[tuple[int, int]] = []
    found = race(candidates()).run(0.0, lambda done, total: told.append((done, total)))
    assert told[-1] == (TURNS, TURNS)
    for measured in found.values():
        assert not measured.failed
        assert 2 <= len(measured.turns_ms) <= 3
        assert len(measured.calls_ms) >= 5 * len(measured.turns_ms)
        assert measured.p50_ms is not None


def test_one_that_does_not_open_says_why_and_the_others_go_on() -> None:
    bad = broken()
    found = race([bad, *candidates()]).run(0.0, lambda done, total: None)
    assert "onnxruntime" in found[bad.id].failed
    assert found[bad.id].turns_ms == []
    assert all(found[c.id].turns_ms for c in candidates())


def with_turns(**turns: list[float]) -> Race:
    """A race in which these medians were measured."""
    made = {
        "float": Candidate(Artifact("openvino", "float", {}, MODEL), EngineConfig()),
        "slow_float": Candidate(Artifact("onnxruntime", "float", {}, MODEL), EngineConfig()),
        "int8": Candidate(Artifact("openvino", "int8", {}, MODEL), EngineConfig()),
        "other": Candidate(Artifact("onnxruntime", "int8", {}, MODEL), EngineConfig()),
    }
    made = {key: each for key, each in made.items() if key in turns}
    found = race(list(made.values()))
    found.results = {c.id: Measurement(turns_ms=turns[key]) for key, c in made.items()}
    return found


def dropped(found: Race) -> set[str]:
    found._drop_stragglers()
    return {key for key, result in found.results.items() if result.dropped}


def test_whoever_is_thirty_percent_behind_is_dropped() -> None:
    found = with_turns(float=[2.0, 2.0], int8=[1.0, 1.0], other=[1.31, 1.4])
    assert dropped(found) == {"onnxruntime/int8/t1"}
    assert found.results["onnxruntime/int8/t1"].dropped == "1.31 times the fastest after 2 turns"


def test_the_best_turn_counts_and_the_border_is_kept() -> None:
    assert dropped(with_turns(float=[9.0], int8=[1.0, 1.0], other=[50.0, 1.3])) == set()


def test_one_lucky_turn_of_the_fastest_drops_nobody() -> None:
    assert dropped(with_turns(float=[9.0], int8=[0.2, 1.0, 1.0], other=[1.1, 1.2])) == set()


def test_the_fastest_float_baseline_is_never_dropped_others_are() -> None:
    found = with_turns(float=[5.0], slow_float=[6.0], int8=[1.0])
    assert dropped(found) == {"onnxruntime/f32/t1"}


def test_the_dropped_and_the_failed_set_no_pace() -> None:
    found = with_turns(float=[2.0], int8=[0.1], other=[2.0])
    found.results["openvino/int8/t1"].failed = "it stopped"
    assert dropped(found) == set()


def test_p99_turns_stop_when_it_would_take_too_long() -> None:
    found = with_turns(float=[1e6])
    found.earn_p99(["openvino/f32/t1"], 1.0, lambda done, total: pytest.fail("no turn was due"))


def test_p99_is_earned_by_enough_calls() -> None:
    one = candidates()[0]
    found = race([one])
    found.run(0.0, lambda done, total: None)
    found.earn_p99([one.id], 30.0, lambda done, total: None)
    assert found.results[one.id].p99_ms is not None
    assert found._open == {}


def test_outputs_are_those_of_the_model() -> None:
    with Runner(candidates()[0], face(MODEL)) as runner:
        first = runner.run(FEEDS)
        second = runner.run({"x": np.zeros((1, 8), np.float32)})
    held = MODEL.graph.graph.initializers["w"].const_value
    assert held is not None
    np.testing.assert_allclose(first["y"], FEEDS["x"] @ held.numpy(), rtol=1e-5, atol=1e-6)
    assert not second["y"].any(), "the first answer is the caller's own"


def test_what_died_in_its_trial_is_never_opened() -> None:
    dead = broken()
    why = "openvino ended its process with SIGILL"
    entries = [dead, *candidates()]
    records = Records(Journal(), face(MODEL), FEEDS)
    found = Race(entries, records, {dead.answers_id: why}).run(0.0, lambda d, t: None)
    assert found[dead.id].failed == why
    assert all(found[c.id].turns_ms for c in candidates())


def quiet(done: int, total: int) -> None:
    """Say nothing."""


def kinds(path: Path) -> list[str]:
    """What was measured, by the file: one line an entry."""
    return [json.loads(line)["kind"] for line in path.read_text().splitlines()[1:]]


def test_a_second_race_takes_every_turn_from_the_journal(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "m.json"
    monkeypatch.setattr(turns_module, "P99_CALLS", 1050)  # more than two turns have
    bad = broken()
    ids = [c.id for c in candidates()]
    first = race([bad, *candidates()], Journal(path))
    first.run(0.0, quiet)
    first.earn_p99(ids, 30.0, quiet)
    written = path.read_bytes()
    assert kinds(path).count("turn") == 1 + 2 * 2, "one failure, two turns of two candidates"
    assert kinds(path).count("p99 turn") >= 2
    monkeypatch.setattr(Runner, "__init__", lambda *_: pytest.fail("it was opened again"))
    second = race([bad, *candidates()], Journal(path))
    second.run(0.0, quiet)
    second.earn_p99(ids, 30.0, quiet)
    assert second.results == first.results
    assert second.results[bad.id].failed
    assert all(second.results[key].p99_ms is not None for key in ids)
    assert path.read_bytes() == written


def test_a_race_that_was_cut_off_goes_on_where_it_was(tmp_path: Path) -> None:
    path = tmp_path / "m.json"
    race(candidates(), Journal(path)).run(0.0, quiet)
    lines = path.read_bytes().splitlines(keepends=True)
    path.write_bytes(b"".join(lines[:3]) + lines[3][:40])  # killed in the third turn
    found = race(candidates(), Journal(path)).run(0.0, quiet)
    again = path.read_bytes().splitlines(keepends=True)
    assert again[:3] == lines[:3]
    keys = [json.loads(line)["key"] for line in again[1:]]
    assert len(keys) == len(set(keys)) == 4
    assert all(len(measured.turns_ms) == 2 for measured in found.values())


def test_without_time_only_what_is_known_counts(tmp_path: Path) -> None:
    path = tmp_path / "m.json"
    first, second = candidates()
    race([first], Journal(path)).run(0.0, quiet)
    late = Deadline()
    late.interrupt()
    found = race([first, second], Journal(path), late)
    with pytest.raises(OutOfTime):
        found.run(0.0, quiet)
    assert found.results[first.id].turns_ms
    assert not found.results[second.id].turns_ms
    assert found._open == {}


def test_the_time_of_earlier_turns_counts(tmp_path: Path) -> None:
    """Else a race that was cut off would measure for longer than it was told."""
    path = tmp_path / "m.json"
    first = race(candidates(), Journal(path))
    first.run(1e-6, quiet)
    assert first._spent_s > 1e-6
    second = race(candidates(), Journal(path))
    found = second.run(first._spent_s - 1e-9, quiet)
    assert [len(m.turns_ms) for m in found.values()] == [2, 2]
    third = race(candidates(), Journal(path)).run(first._spent_s + 1e-3, quiet)
    assert [len(m.turns_ms) for m in third.values()] == [3, 3]


@pytest.mark.parametrize("changed", ["sample", "threads", "artifact", "turn", "cpu", "version"])
def test_a_turn_is_found_by_everything_that_decides_it(
    changed: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    journal, (one, other) = Journal(), candidates()
    Records(journal, face(MODEL), FEEDS).keep("turn", one, {"calls_ms": [1.0]}, turn=0)
    if changed == "cpu":
        monkeypatch.setattr(records_module, "cpu_name", lambda: "another")
    if changed == "version":
        monkeypatch.setattr(records_module, "version", lambda name: "99")
    feeds = {"x": FEEDS["x"] + 1} if changed == "sample" else FEEDS
    records = Records(journal, face(MODEL), feeds)
    artifact = Artifact("onnxruntime", "float", {"model.onnx": b"other"}, MODEL)
    asked = {"threads": other, "artifact": Candidate(artifact, EngineConfig())}.get(changed, one)
    assert records.find("turn", asked, turn=int(changed == "turn")) is None
    monkeypatch.undo()
    assert Records(journal, face(MODEL), FEEDS).find("turn", one, turn=0) == {"calls_ms": [1.0]}
