from __future__ import annotations

from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from graphs import face, parse
from stateful_models import F, H, decoder_step, lstm_step, speech

from edgebm.data.samples import open_samples
from edgebm.errors import DataError, UnsupportedModel, UsageError
from edgebm.exec.carry import carried
from edgebm.exec.collect import float_run
from edgebm.ir.edit import const, set_const
from edgebm.ir.model import Model
from edgebm.ir.streaming import to_streaming
from edgebm.recipe import load_recipe
from edgebm.search import step_samples
from edgebm.search.initial_state import initial_state
from edgebm.search.job import Job, Options
from edgebm.search.judge import AgreementJudge, MetricJudge
from edgebm.search.prepare import prepare
from edgebm.search.stateful import Wanted, settle_states
from edgebm.search.step_samples import CALIBRATION_STEPS, calibration_steps, picked
from edgebm.search.streaming_proof import prove
from edgebm.spec import TensorSpec

RNG = np.random.default_rng(0)
N, T = 12, 9
X = RNG.normal(size=(N, T, 1, F)).astype(np.float32)


def job(model: Model | None = None, **arguments: Any) -> Job:
    keys = ("data", "labels", "metric", "evaluation")
    given = {key: arguments.pop(key) for key in keys if key in arguments}
    wanted = Wanted(
        arguments.pop("state", None),
        arguments.pop("streaming", False),
        arguments.pop("initial", None),
    )
    options = Options(wanted=wanted, **arguments)
    return prepare(model or lstm_step(), load_recipe("int8"), options, **given)


def test_sequences_calibrate_as_steps_with_the_states_of_the_float_model() -> None:
    prepared = job(data={"x": X})
    assert len(prepared.calibration) == 10 * T  # a fifth of the sequences is held out
    assert any(f"{10 * T} steps of 10 sequences calibrate" in note for note in prepared.notes)
    assert prepared.evaluation.sequences
    assert prepared.evaluation.lengths == [T] * 2
    run, rows = float_run(prepared.model), list(prepared.calibration.feeds())
    assert {feeds["x"].shape for feeds in rows} == {(1, 1, F)}
    for before, after in pairwise(rows[:T]):
        got = run(before)
        np.testing.assert_array_equal(after["h"], got["hn"])
        np.testing.assert_array_equal(after["c"], got["cn"])
    assert not rows[T]["h"].any(), "each sequence begins anew"


def test_what_is_timed_is_a_step_in_the_middle() -> None:
    prepared = job(data={"x": X})
    sample = prepared.sample()
    np.testing.assert_array_equal(sample["x"], X[10, T // 2][None])
    assert sample["h"].any()


def test_calibration_steps_are_bounded_and_spread() -> None:
    model = lstm_step()
    settled = settle_states(model, Wanted())
    x = RNG.normal(size=(40, 60, 1, F)).astype(np.float32)
    samples = open_samples({"x": x}, settled.face.inputs, steps=settled.steps)
    steps = calibration_steps(samples, settled.states, model)
    assert CALIBRATION_STEPS - 40 < len(steps) <= CALIBRATION_STEPS


@pytest.mark.parametrize("share", [1, 3, 8])
def test_picked_steps_cover_all_times(share: int) -> None:
    length = 50
    chosen = [picked(length, share, index) for index in range(100)]
    assert all(len(steps) == share for steps in chosen)
    assert all(0 <= step < length for steps in chosen for step in steps)
    assert len(set().union(*chosen)) > length * 0.9
    if share > 1:
        assert all(length - 1 in steps for steps in chosen)
    assert picked(2, share, 0) <= {0, 1}


def test_only_as_many_steps_are_run_as_is_affordable(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(step_samples, "_RUN_STEPS", 4 * T)
    assert any("of 4 sequences" in note for note in job(data={"x": X}).notes)


def test_single_steps_with_and_without_states() -> None:
    steps = X[:, 0]
    prepared = job(data={"x": steps})
    assert not prepared.evaluation.sequences
    assert all(not feeds["h"].any() for feeds in prepared.calibration.feeds())
    states = RNG.normal(size=(N, 2, 1, H)).astype(np.float32)
    prepared = job(data={"x": steps, "h": states})
    np.testing.assert_array_equal(next(iter(prepared.calibration.feeds()))["h"], states[0])


def test_caches_calibrate_with_what_they_hold() -> None:
    prepared = job(decoder_step(), data={"x": X})
    sizes = {feeds["past_k"].shape[1] for feeds in prepared.calibration.feeds()}
    assert sizes == set(range(T))
    assert prepared.states.axes == {"past": (0, 65536)}
    assert prepared.static_shapes() == ()


def test_shapes_bound_a_cache() -> None:
    shapes = {"past_k": [(1, 16, F)]}
    assert job(decoder_step(), data={"x": X}, shapes=shapes).states.axes == {"past": (0, 16)}
    with pytest.raises(DataError, match="at most 4 are allowed"):
        job(decoder_step(), data={"x": X}, shapes={"past_k": [(1, 4, F)]})
    with pytest.raises(UsageError, match=r"shape \[1, 4\] does not fit past_k"):
        job(decoder_step(), data={"x": X}, shapes={"past_k": [(1, 4)]})


def test_candidates_carry_their_own_states() -> None:
    """A model that forgets a little more at each step is worse the longer a sequence is."""
    prepared = job(data={"x": X})
    run = float_run(prepared.model)

    def leaky(feeds: dict[str, Any]) -> dict[str, Any]:
        return run({**feeds, "h": feeds["h"] * 0.9})

    judge = prepared.judged_by(prepared.as_run(run))
    assert isinstance(judge, AgreementJudge)
    exact = judge.score(prepared.as_run(run), lambda done, total: None)
    worse = judge.score(prepared.as_run(leaky), lambda done, total: None)
    assert exact.agreement.drift_db == (150.0, 150.0, 150.0)
    assert list(exact.agreement.outputs) == ["y"], "states are not judged by themselves"
    assert worse.agreement.drift_db is not None
    start, _, end = worse.agreement.drift_db
    assert start == 150.0
    assert end < 40


@pytest.mark.parametrize("each", [True, False])
def test_labels_of_sequences_and_of_steps(each: bool) -> None:
    model = lstm_step()
    settled = settle_states(model, Wanted())
    run = carried(float_run(model), settled.states)
    best = np.stack([run({"x": x[:, None]})["y"].argmax(-1)[:, 0, 0] for x in X])
    prepared = job(
        model, data={"x": X}, evaluation={"x": X, "labels": best if each else best[:, -1]}
    )
    judge = prepared.judged_by(prepared.as_run(float_run(model)))
    assert isinstance(judge, MetricJudge)
    score = judge.score(prepared.as_run(float_run(model)), lambda done, total: None)
    assert score.value == 100.0
    assert (score.verdicts is None) is each


def test_labels_that_fit_neither() -> None:
    with pytest.raises(DataError, match=r"labels \[2, 5\] for 2 sequences of 9 steps"):
        job(data={"x": X}, labels=np.zeros((N, 5), np.int64))


def test_without_samples_sequences_are_made_up() -> None:
    for model in (lstm_step(), decoder_step()):
        prepared = job(model)
        assert prepared.made_up
        assert prepared.evaluation.sequences
        assert len(prepared.calibration) == 8


def test_given_pairs_replace_those_that_are_found() -> None:
    prepared = job(data={"x": X}, state=("h:hn", "c:cn"))
    assert [pair.how for pair in prepared.states.pairs] == ["given", "given"]
    zeros = np.zeros((N, 2, 1, H), np.float32)
    prepared = job(data={"x": X[:, 0], "h": zeros, "c": zeros}, state=("none",))
    assert prepared.states.pairs == ()
    assert prepared.calls is prepared.evaluation
    with pytest.raises(DataError, match="input 'h' has no array"):
        job(data={"x": X[:, 0]}, state=())


SPEC = TensorSpec("h", "float32", (2, "batch", 3))


def test_initial_states(tmp_path: Path) -> None:
    array = np.ones((2, 1, 3))
    np.savez(tmp_path / "start.npz", h=array)
    for given in ({"h": array}, tmp_path / "start.npz", str(tmp_path / "start.npz")):
        found = initial_state(given, [SPEC], frozenset())
        assert found["h"].dtype == np.float32
    assert initial_state(None, [SPEC], frozenset()) == {}
    cache = TensorSpec("k", "float32", (1, "past"))
    assert initial_state({"k": np.ones((1, 5))}, [cache], frozenset({"past"}))["k"].shape == (1, 5)


def test_faults_of_initial_states_come_together() -> None:
    given = {"hh": np.ones(1), "h": np.ones((2, 4, 3))}
    with pytest.raises(DataError) as caught:
        initial_state(given, [SPEC], frozenset())
    assert "'hh' is no state of the model; did you mean 'h'?" in str(caught.value)
    assert "the array has [2, 4, 3]" in str(caught.value)
    with pytest.raises(DataError, match="holds NaN"):
        initial_state({"h": np.full((2, 1, 3), np.nan)}, [SPEC], frozenset())
    with pytest.raises(DataError, match="the array is complex"):
        initial_state({"h": np.ones((2, 1, 3), complex)}, [SPEC], frozenset())
    model = parse("g (float[1,4] x) => (float[1,4] y) { y = Relu(x) }")
    with pytest.raises(UsageError, match="the model has no state"):
        job(model, data=np.ones((4, 4), np.float32), initial={"h": np.ones(1)})


def test_a_streaming_model_takes_samples_of_the_sequence_model() -> None:
    x = RNG.normal(size=(N, 12, F)).astype(np.float32)
    prepared = job(speech(), data={"x": x}, streaming=True)
    assert face(prepared.model).inputs[0].shape == (1, 1, F)
    assert prepared.evaluation.lengths == [12] * 2
    assert len(prepared.calibration) == 120
    assert any("proved equal" in note for note in prepared.notes)
    longer = np.concatenate([x, x, x], 1)
    assert job(speech(), data={"x": longer}, streaming=True).evaluation.lengths == [36] * 2


def test_a_streaming_model_that_answers_otherwise_is_refused() -> None:
    model = speech("12")
    made = to_streaming(model)
    settled = settle_states(model, Wanted(streaming=True))
    prove(model, face(model), made, settled.states)
    head = made.model.graph.graph.initializers["head"]
    wrong = made.model.clone()
    node = next(node for node in wrong.nodes() if node.name == "head_fc")
    set_const(node, 1, const(head) * np.float32(1.1), suffix="wrong")  # type: ignore[operator]
    with pytest.raises(UnsupportedModel, match=r"output 'y' .* at step 0: its largest error is 0"):
        prove(model, face(model), replace(made, model=wrong), settled.states)


def test_states_are_told_in_the_notes() -> None:
    assert (
        "states: h:hn (state of lower, upper), c:cn (state of lower, upper)"
        in settle_states(lstm_step(), Wanted()).notes
    )
