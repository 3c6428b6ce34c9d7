from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from edgebm.data.evaluation import max_drop_warning, resolve_evaluation
from edgebm.data.metrics import BUILT_IN, default_metric, resolve_metric
from edgebm.errors import DataError
from edgebm.spec import TensorSpec

RNG = np.random.default_rng(3)
LOGITS = RNG.normal(size=(200, 7)).astype(np.float32)
CLASSES = np.where(RNG.random(200) < 0.5, LOGITS.argmax(1), RNG.integers(0, 7, 200))


def one_by_one(**outputs: NDArray[Any]) -> list[dict[str, NDArray[Any]]]:
    count = len(next(iter(outputs.values())))
    return [{k: v[i : i + 1] for k, v in outputs.items()} for i in range(count)]


def test_against_scikit_learn_and_scipy() -> None:
    metrics = pytest.importorskip("sklearn.metrics")
    stats = pytest.importorskip("scipy.stats")
    best = LOGITS.argmax(1)
    scores = np.round(LOGITS[:, 0], 1)  # with ties
    wanted = np.round(LOGITS[:, 0] + LOGITS[:, 1], 0)
    single, binary = LOGITS[:, :1], (LOGITS[:, 0] + LOGITS[:, 1] > 0).astype(int)
    several = (LOGITS[:, :3] + LOGITS[:, 3:6] > 0).astype(int)
    cases = [
        ("top1", LOGITS, CLASSES, 100 * metrics.accuracy_score(CLASSES, best)),
        ("accuracy", LOGITS, CLASSES, 100 * metrics.accuracy_score(CLASSES, best)),
        ("top5", LOGITS, CLASSES, 100 * metrics.top_k_accuracy_score(CLASSES, LOGITS, k=5)),
        ("f1", LOGITS, CLASSES, 100 * metrics.f1_score(CLASSES, best, average="macro")),
        ("f1", single, binary, 100 * metrics.f1_score(binary, single[:, 0] > 0, average="macro")),
        (
            "f1",
            LOGITS[:, :3],
            several,
            100 * metrics.f1_score(several, LOGITS[:, :3] > 0, average="macro"),
        ),
        ("accuracy", single, binary, 100 * metrics.accuracy_score(binary, single[:, 0] > 0)),
        ("spearman", scores, wanted, 100 * stats.spearmanr(scores, wanted)[0]),
        ("pearson", scores, wanted, 100 * stats.pearsonr(scores, wanted)[0]),
        ("mse", scores, wanted, metrics.mean_squared_error(wanted, scores)),
    ]
    for name, outputs, labels, expected in cases:
        metric = resolve_metric(name)
        assert metric.compute(one_by_one(y=outputs), labels) == pytest.approx(expected), name
        assert metric.compute({"y": outputs}, labels) == pytest.approx(expected), name


def test_probabilities_are_cut_at_one_half() -> None:
    probabilities = np.array([[0.2], [0.4], [0.6], [0.9]])
    assert BUILT_IN["accuracy"].compute({"p": probabilities}, np.array([0, 0, 1, 0])) == 75


def test_mean_iou_against_counting_by_hand() -> None:
    labels = np.array([[[0, 0, 1], [1, 2, 255]]])
    guesses = np.array([[[0, 1, 1], [1, 1, 0]]])
    # class 0: 1 of 2; class 1: 2 of 4; class 2: 0 of 1; class 3 is nowhere
    expected = 100 * (1 / 2 + 2 / 4 + 0) / 3
    planes = np.moveaxis(np.eye(4)[guesses], -1, 1)
    for output in (guesses, planes, np.eye(4)[guesses]):
        assert BUILT_IN["mean_iou"].compute({"y": output}, labels) == pytest.approx(expected)


def test_sequence_labels_are_pooled_and_minus_100_left_out() -> None:
    scores = np.eye(3, dtype=np.float32)[np.array([[0, 1, 2, 0], [1, 1, 1, 1]])]
    labels = np.array([[0, 1, 1, -100], [1, 1, 0, -100]])
    assert BUILT_IN["top1"].compute({"y": scores}, labels) == pytest.approx(100 * 4 / 6)


def test_sqnr_in_decibels() -> None:
    reference = np.ones((10, 4))
    assert BUILT_IN["sqnr"].compute({"y": reference * 1.1}, reference) == pytest.approx(20)
    assert BUILT_IN["sqnr"].compute({"y": reference}, reference) == 150


def test_outputs_that_collapsed_correlate_with_nothing() -> None:
    assert BUILT_IN["spearman"].compute({"y": np.zeros(5)}, np.arange(5.0)) == 0
    with pytest.raises(DataError, match="all labels are equal"):
        BUILT_IN["pearson"].compute({"y": np.arange(5.0)}, np.ones(5))


@pytest.mark.parametrize(
    ("name", "labels", "words"),
    [
        ("top1", np.full(200, 7), "label 7, but the output has 7 classes"),
        ("top1", np.full(200, -1), "label -1"),
        ("top1", np.full(200, 0.5), "not class numbers"),
        ("top1", np.full(200, "cat"), "not class numbers"),
        ("top1", np.zeros(199, int), "outputs for 199 labels"),
        ("top1", np.zeros(201, int), "200 outputs for 201 labels"),
        ("top1", None, "needs labels"),
        ("pearson", np.zeros(200), "does not fit"),
        ("mse", np.full((200, 7), np.nan), "not finite"),
        ("accuracy", np.full((200, 7), 2), "0 or 1"),
        ("mean_iou", np.zeros((200, 4, 4), int), "does not fit"),
    ],
)
def test_labels_that_make_no_sense(name: str, labels: Any, words: str) -> None:
    with pytest.raises(DataError) as caught:
        BUILT_IN[name].compute(one_by_one(y=LOGITS), labels)
    assert words in str(caught.value)
    assert caught.value.hint


def test_top5_of_five_classes_is_refused() -> None:
    with pytest.raises(DataError, match="always right"):
        BUILT_IN["top5"].compute({"y": LOGITS[:, :5]}, CLASSES % 5)


def test_custom_metric_gets_stacked_outputs(tmp_path: Path) -> None:
    code = tmp_path / "m.py"
    code.write_text(
        "def error(outputs, labels):\n"
        "    assert outputs['a'].shape == (200, 7) and outputs['b'].shape == (200,)\n"
        "    return abs(outputs['b'] - labels).mean()\n"
        "error.higher_is_better = False\n"
        "error.unit = 'degrees'\n"
        "def text(outputs, labels):\n"
        "    return 'good'\n"
        "def broken(outputs, labels):\n"
        "    return outputs['c']\n"
    )
    metric = resolve_metric(f"{code}:error")
    rows = one_by_one(a=LOGITS, b=CLASSES.astype(float))
    assert metric.compute(rows, CLASSES + 2) == 2
    assert (metric.unit, metric.higher_is_better) == ("degrees", False)
    assert metric.drop(1.0, 1.5) == 0.5
    for name, words in (("text", "returned a str"), ("broken", "raised KeyError: 'c'")):
        with pytest.raises(DataError, match=words):
            resolve_metric(f"{code}:{name}").compute(rows, CLASSES)


def test_custom_evaluation_runs_the_model_itself() -> None:
    def both(run: Callable[..., dict[str, NDArray[Any]]]) -> dict[str, float]:
        return {"main": float(run({"x": np.ones(2)})["y"].sum()), "other": 1}

    value, details = resolve_evaluation(both).compute(lambda feeds: {"y": feeds["x"] * 3})
    assert value == 6
    assert details == {"main": 6, "other": 1}
    with pytest.raises(DataError, match="returned nan"):
        resolve_evaluation(lambda run: float("nan")).compute(lambda feeds: feeds)
    with pytest.raises(DataError, match="empty dict"):
        resolve_evaluation(lambda run: {}).compute(lambda feeds: feeds)


def test_unknown_metric_suggests_the_nearest() -> None:
    with pytest.raises(DataError) as caught:
        resolve_metric("spearmann")
    assert "'spearman'" in caught.value.hint


@pytest.mark.parametrize(
    ("shapes", "labels", "expected", "output"),
    [
        ([(1, 10)], np.arange(10), "top1", "o0"),
        ([("n", 8, 384), ("n", 10)], np.arange(10), "top1", "o1"),
        ([(1, 1)], np.array([0, 1]), "accuracy", "o0"),
        ([(1, 21, 64, 64)], np.zeros((2, 64, 64), np.uint8), "mean_iou", "o0"),
        ([(1, "t", 5)], np.zeros((2, 9), int), "top1", "o0"),
        ([(1, 1)], np.array([0.5, 0.2]), "mse", "o0"),
        ([(1, 3)], np.zeros((2, 3), np.float32), "mse", "o0"),
    ],
)
def test_default_metric(shapes: Any, labels: Any, expected: str, output: str) -> None:
    specs = [TensorSpec(f"o{i}", "float32", shape) for i, shape in enumerate(shapes)]
    metric = default_metric(specs, labels)
    assert (metric.name, metric.output) == (expected, output)


def test_default_metric_asks_when_nothing_fits() -> None:
    with pytest.raises(DataError) as caught:
        default_metric([TensorSpec("y", "float32", (1, 4, 4))], np.arange(3))
    assert "--metric" in caught.value.hint


def test_a_drop_that_looks_like_a_fraction_is_warned_about() -> None:
    assert "points of 100" in max_drop_warning(BUILT_IN["top1"], 0.01)
    assert not max_drop_warning(BUILT_IN["top1"], 0.3)
    assert not max_drop_warning(BUILT_IN["top1"], 0)
    assert not max_drop_warning(BUILT_IN["mse"], 0.001)
