from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from edgebm.data.classes import Chance, Classes, class_changes, is_one_hot
from edgebm.data.metrics import BUILT_IN, resolve_metric

RNG = np.random.default_rng(5)
LOGITS = RNG.normal(size=(300, 7)).astype(np.float32)
LABELS = np.where(RNG.random(300) < 0.6, LOGITS.argmax(1), RNG.integers(0, 6, 300))  # 6 is rare


def test_recall_and_f1_of_each_class_against_scikit_learn() -> None:
    metrics = pytest.importorskip("sklearn.metrics")
    best, present = LOGITS.argmax(1), np.unique(LABELS)
    top1, accuracy, f1 = (BUILT_IN[n].assess({"y": LOGITS}, LABELS) for n in
                          ("top1", "accuracy", "f1"))  # fmt: skip
    recalls = 100 * metrics.recall_score(LABELS, best, average=None, labels=present)
    for found in (top1, accuracy):
        assert found.classes is not None
        assert found.classes.measure == "recall"
        assert found.classes.labels == tuple(present)
        assert found.classes.counts == tuple(np.bincount(LABELS)[present])
        assert found.classes.values == pytest.approx(recalls)
        assert found.verdicts is not None
        assert found.verdicts.dtype == np.int8
        np.testing.assert_array_equal(found.verdicts, best == LABELS)
    assert f1.classes is not None
    assert f1.classes.measure == "F1"
    assert f1.classes.values == pytest.approx(
        100 * metrics.f1_score(LABELS, best, average=None, labels=present)
    )
    assert f1.verdicts is None, "F1 is no share of right answers"


def test_top5_counts_the_label_among_the_five() -> None:
    found = BUILT_IN["top5"].assess({"y": LOGITS}, LABELS)
    right = (np.argsort(-LOGITS, axis=1)[:, :5] == LABELS[:, None]).any(axis=1)
    assert found.classes is not None
    assert found.classes.measure == "top-5 recall"
    assert found.classes.values == pytest.approx(
        [100 * right[k == LABELS].mean() for k in found.classes.labels]
    )


def test_classes_without_samples_are_left_out() -> None:
    found = BUILT_IN["f1"].assess({"y": np.eye(4)[[0, 3, 3]]}, np.array([0, 1, 3]))
    assert found.classes is not None
    assert found.classes.labels == (0, 1, 3)
    assert found.classes.values == pytest.approx([100, 0, 100 * 2 / 3])


def test_yes_or_no_labels() -> None:
    scores = np.array([[-2.0], [1.0], [3.0], [-1.0], [2.0]])
    found = BUILT_IN["accuracy"].assess({"y": scores}, np.array([0, 0, 1, 1, 1]))
    assert found.classes == Classes("recall", (0, 1), (2, 3), (50.0, pytest.approx(200 / 3)))
    assert found.verdicts is not None
    assert found.verdicts.tolist() == [1, 0, 1, 0, 1]


def test_several_labels_of_a_sample_are_a_class_each() -> None:
    scores = np.array([[1.0, -1, -1], [1, 1, -1], [-1, 1, -1]])
    labels = np.array([[1, 0, 0], [0, 1, 0], [0, 1, 0]])
    accuracy = BUILT_IN["accuracy"].assess({"y": scores}, labels)
    assert accuracy.classes == Classes("recall", (0, 1), (1, 2), (100.0, 100.0))
    assert accuracy.verdicts is None
    f1 = BUILT_IN["f1"].assess({"y": scores}, labels)
    assert f1.classes == Classes("F1", (0, 1), (1, 2), (pytest.approx(200 / 3), 100.0))


def test_intersection_over_union_of_each_class() -> None:
    labels = np.array([[[0, 0, 1], [1, 2, 255]], [[0, 0, 0], [0, 0, 255]]])
    guesses = np.array([[[0, 1, 1], [1, 1, 0]], [[0, 0, 0], [0, 3, 0]]])
    found = BUILT_IN["mean_iou"].assess({"y": np.moveaxis(np.eye(5)[guesses], -1, 1)}, labels)
    assert found.classes == Classes(
        "IoU", (0, 1, 2), (2, 1, 1), (pytest.approx(100 * 5 / 7), 50.0, 0.0)
    )
    assert found.verdicts is None


def test_sequences_have_classes_but_no_verdict_for_each_sample() -> None:
    scores = np.eye(3, dtype=np.float32)[np.array([[0, 1, 2, 0], [1, 1, 1, 1]])]
    labels = np.array([[0, 1, 1, -100], [1, 1, 0, -100]])
    found = BUILT_IN["top1"].assess({"y": scores}, labels)
    assert found.verdicts is None
    assert found.classes == Classes("recall", (0, 1), (2, 4), (50.0, 75.0))


def test_a_label_that_does_not_count_has_no_verdict() -> None:
    found = BUILT_IN["top1"].assess({"y": LOGITS[:3]}, np.array([LABELS[0], -100, LABELS[2]]))
    assert found.verdicts is not None
    assert found.verdicts[1] == -1


@pytest.mark.parametrize("name", ["mse", "sqnr", "pearson"])
def test_metrics_without_classes(name: str) -> None:
    found = BUILT_IN[name].assess({"y": LOGITS[:, 0]}, LOGITS[:, 1])
    assert found.classes is None
    assert found.verdicts is None


def test_metrics_of_the_user_have_no_classes() -> None:
    def mine(outputs: dict[str, Any], labels: np.ndarray) -> float:
        return 1.0

    found = resolve_metric(mine).assess({"y": LOGITS}, LABELS)
    assert (found.classes, found.verdicts, found.doubt("it")) == (None, None, "")


@pytest.mark.row(71)
def test_changes_name_the_class_that_lost_most() -> None:
    before = Classes("recall", (0, 4, 9), (30, 5, 50), (90.0, 80.0, 70.0))
    after = Classes("recall", (0, 4, 9), (30, 5, 50), (90.0, 60.0, 50.0))
    assert class_changes(before, after) == {
        "measure": "recall",
        "labels": ["0", "4", "9"],
        "counts": [30, 5, 50],
        "before": [90.0, 80.0, 70.0],
        "after": [90.0, 60.0, 50.0],
        "worst": {"class": "9", "before": 70.0, "after": 50.0, "drop": 20.0},
    }
    assert before.worst() == 2
    with pytest.raises(ValueError, match="other labels"):
        class_changes(before, Classes("recall", (0,), (1,), (1.0,)))


@pytest.mark.parametrize("name", ["top1", "accuracy", "top5"])
def test_guesses_are_told_from_skill(name: str) -> None:
    metric = BUILT_IN[name]
    shuffled = RNG.permutation(LABELS)
    found = metric.assess({"y": LOGITS}, shuffled)
    assert found.chance is not None
    assert found.value == pytest.approx(found.chance.mean, abs=4 * found.chance.deviation)
    assert "as good as guessing" in found.doubt("the float model")
    assert metric.assess({"y": LOGITS}, LABELS).doubt("the float model") == ""
    assert metric.assess({"y": LOGITS[:99]}, shuffled[:99]).doubt("x") == "", "too few to tell"


def test_always_the_same_answer_is_no_skill_however_common_it_is() -> None:
    labels = np.array([0] * 90 + [1] * 20)
    constant = np.tile([[1.0, 0.0]], (110, 1))
    assert "guessing (81.8)" in BUILT_IN["top1"].assess({"y": constant}, labels).doubt("it")


def test_a_weak_binary_model_is_better_than_guessing() -> None:
    right = np.arange(1000) % 100 < 65
    labels = np.arange(1000) % 2
    scores = np.eye(2)[np.where(right, labels, 1 - labels)]
    assert BUILT_IN["top1"].assess({"y": scores}, labels).doubt("it") == ""


def test_values_that_have_nothing_to_do_with_each_other() -> None:
    x, y = RNG.normal(size=400), RNG.normal(size=400)
    spearman = BUILT_IN["spearman"]
    assert "as good as guessing (0.0)" in spearman.assess({"y": x}, y).doubt("the float model")
    assert spearman.assess({"y": x}, x + y).doubt("the float model") == ""
    assert spearman.assess({"y": 0 * x}, y).doubt("a constant") != ""
    assert spearman.assess({"y": x}, -x - y).doubt("the float model") == "", "it is no guess"


def test_the_chance_of_luck_shrinks_with_the_labels() -> None:
    assert Chance(50.0, 5.0, 100).explains(59.0)
    assert not Chance(50.0, 0.5, 10000).explains(59.0)
    assert Chance(50.0, 0.5, 10000).explains(52.0), "a twentieth of the way"
    assert not Chance(50.0, 5.0, 99).explains(50.0)


def test_one_hot_rows() -> None:
    assert is_one_hot(np.eye(3)[[0, 2, 1]])
    assert not is_one_hot(np.array([[1, 1, 0], [0, 0, 1]]))
    assert not is_one_hot(np.ones((4, 1)))
