from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from edgebm.data.label_checks import label_faults
from edgebm.data.metrics import BUILT_IN
from edgebm.data.significance import wilson
from edgebm.errors import DataError
from edgebm.spec import TensorSpec

# Four sick of which three are found, six healthy of which two are told as sick.
LABELS = np.array([1] * 4 + [0] * 6)
GUESSES = np.array([1, 1, 1, 0, 1, 1, 0, 0, 0, 0])


@pytest.mark.parametrize(("name", "expected"), [("sensitivity", 75.0), ("specificity", 400 / 6)])
def test_shares_of_the_sick_and_of_the_healthy(name: str, expected: float) -> None:
    scores = np.eye(2)[GUESSES]
    assert BUILT_IN[name].compute({"y": scores}, LABELS) == pytest.approx(expected)
    probabilities = np.where(GUESSES == 1, 0.9, 0.2)[:, None]
    assert BUILT_IN[name].compute({"p": probabilities}, LABELS) == pytest.approx(expected)
    logits = np.where(GUESSES == 1, 0.4, -3.0)
    assert BUILT_IN[name].compute({"p": logits}, LABELS) == pytest.approx(expected)


@pytest.mark.parametrize("name", ["sensitivity", "specificity"])
def test_what_has_not_two_classes_is_refused(name: str) -> None:
    metric = BUILT_IN[name]
    with pytest.raises(DataError, match="one or two scores"):
        metric.compute({"y": np.eye(3)}, np.array([0, 1, 1]))
    with pytest.raises(DataError, match="a label of 0 or 1"):
        metric.compute({"y": np.eye(2)}, np.array([0, 2]))
    missing = 1 - int(name == "sensitivity")
    with pytest.raises(DataError, match=f"needs samples with the label {1 - missing}"):
        metric.compute({"y": np.eye(2)}, np.array([missing, missing]))


@pytest.mark.parametrize(
    ("labels", "shape", "words"),
    [
        ([0, 1, 4], (1, 2), "a label is 4"),
        ([0, 0, 0], (1, 2), "no label is 1"),
        ([[0, 1], [1, 0]], (1, 2), "several a sample"),
        ([0, 1, 1], (1, 5), "the output has 5 scores"),
    ],
)
def test_faults_are_known_before_anything_runs(
    labels: Any, shape: tuple[int, ...], words: str
) -> None:
    spec = TensorSpec("y", "float32", shape)
    (fault,) = label_faults(BUILT_IN["sensitivity"], [spec], np.asarray(labels))
    assert words in fault


@pytest.mark.parametrize(("hits", "count"), [(0, 5), (5, 5), (81, 83), (107, 117), (1, 1000)])
def test_wilson_against_scipy(hits: int, count: int) -> None:
    stats = pytest.importorskip("scipy.stats")
    expected = stats.binomtest(hits, count).proportion_ci(0.95, method="wilson")
    assert wilson(hits, count) == pytest.approx((expected.low, expected.high), abs=1e-12)


def test_a_share_of_nothing_has_no_interval() -> None:
    with pytest.raises(ValueError, match="0 of 0"):
        wilson(0, 0)
    with pytest.raises(ValueError, match="4 of 3"):
        wilson(4, 3)


def test_labels_that_fit_have_no_fault() -> None:
    for shape in [(1, 2), (1, 1), (1,), ("batch", 2)]:
        spec = TensorSpec("y", "float32", shape)
        assert not list(label_faults(BUILT_IN["specificity"], [spec], np.array([0, 1])))
