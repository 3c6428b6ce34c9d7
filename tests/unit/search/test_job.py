from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from graphs import random_model

from edgebm.errors import DataError, UsageError
from edgebm.ir.model import Model
from edgebm.recipe import load_recipe
from edgebm.search.job import Job, Options
from edgebm.search.judge import AgreementJudge, EvaluationJudge, MetricJudge
from edgebm.search.prepare import prepare

RNG = np.random.default_rng(0)
X = RNG.normal(size=(40, 6)).astype(np.float32)
LABELS = RNG.integers(0, 4, 40)


def fixed() -> Model:
    return random_model(
        """g (float[1,6] x) => (float[1,4] y) {
          [encoder_fc] h = MatMul(x, w)
          [act] r = Relu(h)
          [head] y = MatMul(r, u)
        }""",
        w=(6, 6),
        u=(6, 4),
    )


def free() -> Model:
    return random_model(
        "g (float[1,seq,6] x) => (float[1,seq,4] y) { y = MatMul(x, w) }", w=(6, 4)
    )


def job(model: Model | None = None, recipe: str = "int8", **arguments: Any) -> Job:
    keys = ("data", "labels", "metric", "evaluation")
    given = {key: arguments.pop(key) for key in keys if key in arguments}
    return prepare(model or fixed(), load_recipe(recipe), Options(**arguments), **given)


def judge(prepared: Job) -> Any:
    return prepared.judged_by(lambda feeds: {"y": feeds["x"][:, :4]})


@pytest.mark.parametrize("pattern", ["encoder_fc", "encoder*", "*_fc", "Relu", "[eh]*"])
def test_ignored_patterns(pattern: str) -> None:
    prepared = job(data=X, ignored=(pattern,))
    hits = [n.name for n in fixed().nodes() if prepared.is_ignored(n.name or "", n.op_type)]
    assert hits


def test_ignored_patterns_that_match_nothing_are_all_listed() -> None:
    with pytest.raises(
        UsageError, match=r"nothing in the model: encodr\.\* \(near: encoder_fc\), Convv"
    ) as caught:
        job(data=X, ignored=("encodr.*", "Relu", "Convv"))
    assert "--keep DIR" in caught.value.hint


def test_shapes_on_a_fixed_model() -> None:
    with pytest.raises(UsageError, match="every axis of the model has a fixed size"):
        job(data=X, shapes={"x": [(1, 6)]})


def test_shapes_that_do_not_fit() -> None:
    rows = RNG.normal(size=(12, 5, 6)).astype(np.float32)
    with pytest.raises(UsageError, match="does not fit"):
        job(free(), data=rows, shapes={"x": [(1, 8, 7)]})
    prepared = job(free(), data=rows, shapes={"x": [(1, 8, 6), (1, 16, 6)]})
    assert prepared.static_shapes() == ({"x": (1, 8, 6)}, {"x": (1, 16, 6)})
    assert job(free(), data=rows).static_shapes() == ({"x": (1, 5, 6)},)


def test_a_metric_without_labels() -> None:
    with pytest.raises(DataError, match="--metric needs labels") as caught:
        job(data=X, metric="top1")
    assert "labels" in caught.value.hint


def test_a_metric_beside_a_program() -> None:
    with pytest.raises(UsageError, match="--metric and an --eval program"):
        job(data=X, labels=LABELS, metric="top1", evaluation=lambda run: 1.0)


def test_int8_without_samples_leaves_out_what_needs_some_and_says_so() -> None:
    prepared = job()
    assert prepared.made_up
    kinds = [step.kind for step in prepared.steps]
    assert kinds == [
        "recognize_cells",
        "split_directions",
        "fold_batchnorm",
        "quantize_weights",
        "correct_bias",
    ]
    assert [(skip.step, skip.reason) for skip in prepared.left_out] == [
        ("equalize_channels", "it needs samples (-d)"),
        ("smooth_activations", "it needs samples (-d)"),
        ("quantize_activations", "it needs samples (-d)"),
    ]
    assert prepared.warnings == [
        "no samples were given with -d; left out: equalize_channels, smooth_activations, "
        "quantize_activations; speed and agreement "
        "with the float model are measured on made-up "
        "inputs"
    ]


def test_int8_with_samples_takes_every_step() -> None:
    prepared = job(data=X)
    assert not prepared.made_up
    assert prepared.steps == load_recipe("int8").steps
    assert prepared.left_out == ()
    assert prepared.warnings == []


def test_samples_to_evaluate_on_alone_calibrate_nothing(tmp_path: Path) -> None:
    path = tmp_path / "eval.npz"
    np.savez(path, x=X, labels=LABELS)
    prepared = job(evaluation=str(path))
    assert prepared.made_up
    assert len(prepared.evaluation) == 40
    assert isinstance(judge(prepared), MetricJudge)
    assert prepared.warnings == [
        "no samples were given with -d; left out: equalize_channels, smooth_activations, "
        "quantize_activations"
    ]


def test_a_program_alone_is_timed_on_made_up_inputs() -> None:
    prepared = job(evaluation=lambda run: 1.0)
    assert prepared.warnings[0].endswith("speed is measured on made-up inputs")


def test_float_without_samples_makes_some_up_and_says_so() -> None:
    prepared = job(recipe="fp32")
    assert "made-up inputs" in prepared.warnings[0]
    assert len(prepared.warnings) == 1, "made-up inputs are not judged"
    assert "left out" not in prepared.warnings[0]
    assert prepared.sample()["x"].shape == (1, 6)
    assert job(recipe="fp32").calibration.digest() == prepared.calibration.digest()
    assert job(recipe="fp32", seed=1).calibration.digest() != prepared.calibration.digest()


def test_float_without_samples_on_free_axes() -> None:
    with pytest.raises(DataError, match=r"sizes of free axes .* x: float32\[1, seq, 6\]"):
        job(free(), "fp32")


@pytest.mark.row(67)
def test_a_fifth_is_held_out_of_calibration() -> None:
    prepared = job(data=X)
    assert (len(prepared.calibration), len(prepared.evaluation)) == (32, 8)
    both = [feeds["x"] for part in (prepared.calibration, prepared.evaluation)
            for feeds in part.feeds()]  # fmt: skip
    assert np.unique(np.concatenate(both), axis=0).shape[0] == 40


def test_few_samples_serve_both() -> None:
    prepared = job(data=X[:9])
    assert (len(prepared.calibration), len(prepared.evaluation)) == (9, 9)


def test_separate_evaluation_samples_leave_calibration_whole(tmp_path: Path) -> None:
    path = tmp_path / "eval.npz"
    np.savez(path, x=X[:7], labels=LABELS[:7])
    prepared = job(data=X, evaluation=str(path))
    assert (len(prepared.calibration), len(prepared.evaluation)) == (40, 7)
    assert isinstance(judge(prepared), MetricJudge)


def test_the_subset_size() -> None:
    assert len(job(data=X, subset_size=5).calibration) == 5
    assert (
        job(data=X, subset_size=5).calibration.digest()
        == job(data=X, subset_size=5).calibration.digest()
    )
    many = np.zeros((500, 6), np.float32) + np.arange(500, dtype=np.float32)[:, None]
    assert len(job(data=many).calibration) == load_recipe("int8").subset_size


def test_who_judges() -> None:
    assert isinstance(judge(job(data=X)), AgreementJudge)
    by_labels = judge(job(data=X, labels=LABELS))
    assert isinstance(by_labels, MetricJudge)
    assert by_labels.name == "top1"
    assert by_labels.max_drop == 1.0
    assert isinstance(judge(job(data=X, evaluation=lambda run: 0.5)), EvaluationJudge)


def test_max_drop_without_labels_is_said_to_be_ignored() -> None:
    assert any("--max-drop is ignored" in w for w in job(data=X, max_drop=1.0).warnings)


def test_a_hundredth_of_a_point_is_warned_about() -> None:
    warnings = job(data=X, labels=LABELS, max_drop=0.01).warnings
    assert any("point" in w for w in warnings), warnings
    assert job(data=X, labels=LABELS, max_drop=1.0).warnings == []


def test_faults_of_samples_and_labels_come_together() -> None:
    same = np.ones((40, 6), np.float32)
    with pytest.raises(DataError) as caught:
        job(data=same, labels=LABELS + 1, metric="top1")
    assert "identical" in str(caught.value)
    assert "start at 1; use labels - 1" in str(caught.value)
    assert len(caught.value.details["faults"]) == 2
    assert len(job(data=same, recipe="fp32").calibration) == 32, "nothing is calibrated there"


@pytest.mark.row(66)
def test_a_hundred_alike_and_one_other_are_warned_about() -> None:
    rows = np.repeat(X[:10], 6, axis=0)
    (warning,) = [w for w in job(data=rows, evaluation=X[10:]).warnings if "repeat" in w]
    assert warning.startswith("50 of 60 calibration samples (83 %) repeat others")


@pytest.mark.row(66)
def test_few_samples_are_warned_about() -> None:
    assert any("only 20 samples calibrate" in w for w in job(data=X, subset_size=20).warnings)
    assert any("only 1 sample calibrates" in w for w in job(data=X[:1]).warnings)
    assert not any("calibrate" in w for w in job(data=X).warnings)
    assert job(data=X[:9], recipe="fp32").warnings == []


@pytest.mark.row(67)
def test_samples_in_both_sets_are_counted() -> None:
    same = job(data=X, evaluation=X.copy()).warnings
    assert any(w.startswith("the same 40 samples calibrate and evaluate") for w in same), same
    assert any(w.startswith("the same 9 samples") for w in job(data=X[:9]).warnings)
    some = job(data=X, evaluation=np.concatenate([X[3:10], X[20:] + 1])).warnings
    assert any("7 of 40 calibration samples are also evaluation samples" in w for w in some), some
    assert any("take them out of -d or of -e" in w for w in some)
    doubled = job(data=np.concatenate([X, X[:8]])).warnings
    assert any("8 of 38" in w and "doubled in the file" in w for w in doubled), doubled
    assert job(data=X, evaluation=X + 1).warnings == []


def test_a_file_sorted_by_class_is_warned_about() -> None:
    warnings = job(data=X, labels=np.maximum(0, np.arange(40) // 8 - 1)).warnings
    assert any("shuffle the samples" in w for w in warnings), warnings
    assert any("all 8 labels are class 3" in w for w in warnings), warnings


def test_a_program_evaluates_on_its_own_samples() -> None:
    assert job(data=X, evaluation=lambda run: 1.0).warnings == []


def test_live_samples_are_taken_as_they_are() -> None:
    from edgebm.data.samples import open_samples

    prepared = fixed()
    from edgebm.ir.face import face

    samples = open_samples(X, face(prepared)[0])
    assert job(data=samples).calibration.source == samples.source
