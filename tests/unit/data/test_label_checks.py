from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from edgebm.data.label_checks import label_faults, label_warnings
from edgebm.data.metrics import BUILT_IN, default_metric, resolve_metric
from edgebm.errors import DataError
from edgebm.spec import TensorSpec

RNG = np.random.default_rng(2)
NUMBERS = RNG.integers(0, 10, 80)
NUMBERS[:2] = 0, 9


def faults(name: str, labels: Any, *shape: int | str) -> list[str]:
    spec = TensorSpec("y", "float32", shape or (1, 10))
    return list(label_faults(BUILT_IN[name], [spec], np.asarray(labels)))


def warnings(name: str, labels: Any, *shape: int | str) -> list[str]:
    spec = TensorSpec("y", "float32", shape or (1, 10))
    return list(label_warnings(BUILT_IN[name], [spec], np.asarray(labels)))


@pytest.mark.parametrize("output", ["sentence_embedding", "last_hidden_state"])
def test_vectors_are_no_scores_of_classes(output: str) -> None:
    spec = TensorSpec(output, "float32", ("batch", 10))
    (fault,) = label_faults(BUILT_IN["top1"], [spec], NUMBERS)
    assert f"output '{output}' is a vector" in fault
    assert list(label_faults(BUILT_IN["mse"], [spec], np.zeros((3, 10)))) == []


@pytest.mark.parametrize(
    ("name", "labels", "shape", "words"),
    [
        ("top1", NUMBERS + 1, (1, 10), "from 1 to 10, and the model's 10 classes count from 0"),
        ("f1", NUMBERS + 1, ("n", 10), "they seem to start at 1; use labels - 1"),
        ("top1", NUMBERS - 1, (1, 10), "0 to 9: labels go from -1 to 8"),
        ("top1", NUMBERS * 2, (1, 10), "of 80 labels are none of the model's 10 classes"),
        ("top1", NUMBERS[:, None] + 5, (1, 10), "labels go from 5 to 14"),
        ("top1", NUMBERS + 0.5, (1, 10), "not class numbers: float64, for example 0.5"),
        ("accuracy", np.array(["cat", "dog"]), (1, 10), "not class numbers"),
        ("top1", np.eye(10)[NUMBERS], (1, 10), "one-hot rows, and top1 takes one class number"),
        ("top5", np.eye(10, dtype=int)[NUMBERS], (1, 10), "use labels.argmax(axis=1)"),
        ("top5", NUMBERS % 5, (1, 5), "top5 of only 5 classes is always right"),
        ("top1", RNG.integers(0, 5, (8, 12)), (1, 9, 5), "has 12 labels, and the output has room"),
        ("top1", NUMBERS, (1, 9, 10), "has 1 labels, and the output has room for 9"),
        ("accuracy", NUMBERS, (1, 1), "a label is 9, and one for a single score must be 0 or 1"),
        ("f1", np.full((4, 10), 2), (1, 10), "must be 0 or 1"),
        ("mean_iou", np.full((2, 4, 6), 5), (1, 5, 4, 6), "none of the model's 5 classes"),
        ("mean_iou", np.full((2, 4, 6), 5), (1, 4, 6, 5), "none of the model's 5 classes"),
        ("spearman", np.full(9, 3.5), (1, 1), "all 9 labels are 3.5, so spearman is not defined"),
        ("pearson", np.arange(6.0), (1, 4), "do not fit the output"),
        ("mse", np.zeros((3, 4)), (1, 5), "do not fit the output"),
        ("sqnr", np.array(["a", "b"]), (1, 1), "not numbers"),
    ],
)
def test_labels_that_the_metric_cannot_use(
    name: str, labels: Any, shape: tuple[int | str, ...], words: str
) -> None:
    found = faults(name, labels, *shape)
    assert len(found) == 1
    assert words in found[0]


@pytest.mark.parametrize(
    ("name", "labels", "shape"),
    [
        ("top1", NUMBERS, (1, 10)),
        ("top1", NUMBERS.astype(np.float32), ("n", 10)),
        ("top1", NUMBERS[:, None], (1, 10)),
        ("top1", NUMBERS, (10,)),
        ("top1", NUMBERS, (1, 10, 1, 1)),
        ("top1", np.where(NUMBERS > 8, -100, NUMBERS), (1, 10)),
        ("top1", np.maximum(NUMBERS, 1), (1, 10)),
        ("top1", RNG.integers(0, 5, (8, 12)), (1, "t", 5)),
        ("top1", NUMBERS + 1, (1, "c")),
        ("accuracy", NUMBERS % 2, (1, 1)),
        ("accuracy", NUMBERS % 2, (1, 2)),
        ("f1", np.eye(10)[NUMBERS], (1, 10)),
        ("mean_iou", np.where(RNG.random((2, 4, 6)) > 0.5, 255, 4), (1, 5, 4, 6)),
        ("mean_iou", np.full((2, 4, 6), 7), (1, 4, 6)),
        ("mean_iou", np.full((2, 4, 6), 7), (1, 5, "h", "w")),
        ("spearman", np.arange(9.0), (1, 1)),
        ("pearson", np.arange(9.0), (1, "d")),
        ("mse", np.zeros((3, 4)), (1, 4)),
    ],
)
def test_labels_that_it_can(name: str, labels: Any, shape: tuple[int | str, ...]) -> None:
    assert faults(name, labels, *shape) == []


def test_one_class_only() -> None:
    assert "all 8 labels are class 3" in warnings("top1", np.full(8, 3))[0]
    assert warnings("top1", [3]) == []
    assert warnings("top1", NUMBERS) == []
    assert warnings("mse", np.zeros(8), 1, 1) == []


def test_one_hot_rows_where_every_number_is_compared() -> None:
    rows = np.eye(10, dtype=np.float32)[NUMBERS]
    for name in ("mse", "accuracy", "f1"):
        assert "for one class a sample give labels.argmax(axis=1)" in warnings(name, rows)[0]
    assert default_metric([TensorSpec("y", "float32", (1, 10))], rows).name == "mse"
    with pytest.raises(DataError) as caught:
        default_metric([TensorSpec("y", "float32", (1, 10))], rows.astype(int))
    assert "labels.argmax(axis=1) for top1" in caught.value.hint


def test_the_output_that_is_judged() -> None:
    specs = [TensorSpec("a", "float32", (1, 3)), TensorSpec("b", "float32", (1, 10))]
    metric = default_metric(specs[1:], NUMBERS)
    assert list(label_faults(metric, specs, NUMBERS)) == []
    assert len(list(label_faults(BUILT_IN["top1"], specs, NUMBERS))) == 1


def test_metrics_of_the_user_decide_for_themselves() -> None:
    mine = resolve_metric(lambda outputs, labels: 1.0)
    spec = [TensorSpec("y", "float32", (1, 10))]
    assert list(label_faults(mine, spec, np.array(["x"]))) == []
    assert list(label_warnings(mine, spec, np.array(["x", "x"]))) == []
