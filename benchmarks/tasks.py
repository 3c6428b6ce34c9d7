"""The models of the benchmarks: their files, their shapes and how their answers are scored."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import gauge_score
import minilm
import numpy as np
from datasets import WORK
from detection import mean_average_precision
from numpy.typing import NDArray

Arrays = Mapping[str, NDArray[Any]]
Run = Callable[[Arrays], Arrays]
Value = Callable[[Arrays, NDArray[Any]], float]


@dataclass(frozen=True)
class Task:
    """A model, how it is scored and how much it may lose.

    `value` maps outputs [n, ...] by name and the labels to points of 100. `shapes` is the one
    shape that is timed. `columns` names the last axis of the output where its entries are
    quantities of their own; `recipes` are worth a row beside those for every task. `limit` keeps
    that many labels of the test set, for a quick look.
    """

    name: str
    metric: str
    value: Value
    shapes: Mapping[str, tuple[int, ...]]
    max_drop: float
    columns: tuple[str, ...] = ()
    recipes: tuple[str, ...] = ()
    labels: str = "labels"
    limit: int | None = None

    @property
    def is_transformer(self) -> bool:
        return self.name == "minilm"

    @property
    def is_top1(self) -> bool:
        return self.value is top1

    @property
    def model(self) -> Path:
        return WORK / f"{self.name}.onnx"

    def samples(self, part: str) -> Path:
        """The file of one part: calibration_300, validation (of some tasks) or test."""
        return WORK / f"{self.name}_{part}.npz"

    def read(self, part: str) -> tuple[dict[str, NDArray[Any]], NDArray[Any]]:
        """The inputs [n, ...] by name and the labels of one part."""
        with np.load(self.samples(part)) as stored:
            inputs, labels = {name: stored[name] for name in self.shapes}, stored[self.labels]
        if part != "test" or self.limit is None or self.limit >= len(labels):
            return inputs, labels
        each = len(next(iter(inputs.values()))) // len(labels)  # 2 sentences have one label
        # The test sets of images are sorted by class.
        chosen = np.arange(self.limit) * len(labels) // self.limit
        rows = (chosen[:, None] * each + np.arange(each)).ravel()
        return {name: array[rows] for name, array in inputs.items()}, labels[chosen]

    def score(self, run: Run) -> float:
        """The metric of a model that answers one sample at a time, on the whole test set."""
        inputs, labels = self.read("test")
        return self.value(answers(run, inputs), labels)

    def parts(self, outputs: Arrays) -> dict[str, NDArray[Any]]:
        """What is compared with the float model: each output, or each column of the only one."""
        if not self.columns:
            return dict(outputs)
        only = next(iter(outputs.values()))
        return {name: only[..., index] for index, name in enumerate(self.columns)}


def answers(run: Run, inputs: Arrays) -> dict[str, NDArray[Any]]:
    """The outputs [n, ...] of a model that is given one sample of ``inputs`` at a time."""
    count = len(next(iter(inputs.values())))
    rows: dict[str, list[NDArray[Any]]] = {}
    for index in range(count):
        for name, array in run({k: v[index : index + 1] for k, v in inputs.items()}).items():
            rows.setdefault(name, []).append(np.array(array))
    return {name: np.concatenate(each) for name, each in rows.items()}


def hits(outputs: Arrays, labels: NDArray[Any]) -> NDArray[np.bool_]:
    """Of each sample whether the highest score is the label's: [n]."""
    scores = next(iter(outputs.values()))
    found: NDArray[np.bool_] = scores.argmax(1) == labels
    return found


def top1(outputs: Arrays, labels: NDArray[Any]) -> float:
    """Top-1 accuracy."""
    return float(100 * hits(outputs, labels).mean())


def correlation(outputs: Arrays, labels: NDArray[Any]) -> float:
    """Spearman's correlation of the pairs' cosine similarity with their scores."""
    return minilm.spearman_of(outputs["sentence_embedding"], labels)


def precision(outputs: Arrays, labels: NDArray[Any]) -> float:
    """Mean average precision at an overlap of 0.5."""
    return mean_average_precision(list(outputs["scores"]), list(outputs["boxes"]), labels)


def variance(outputs: Arrays, labels: NDArray[Any]) -> float:
    """Share of the variance that is explained, mean over the quantities."""
    return gauge_score.explained(outputs["measures"], labels)


for function in (top1, correlation, precision, variance):
    function.unit = "points"  # as edgebm --metric wants to know

IMAGE = {"image": (1, 3, 32, 32)}
TOKENS = dict.fromkeys(("input_ids", "attention_mask"), (1, minilm.TOKENS))
TASKS = {
    task.name: task
    for task in (
        Task("minilm", "Spearman x100", correlation, TOKENS, 0.23, (), ("w8", "w4"), "scores"),
        Task("cifar10", "top-1 %", top1, IMAGE, 0.3),
        Task("gtsrb", "top-1 %", top1, IMAGE, 0.3),
        Task("hard", "top-1 %", top1, IMAGE, 0.3),
        Task("exposure", "top-1 %", top1, IMAGE, 0.3),
        Task("offset", "top-1 %", top1, IMAGE, 0.3),
        # A box of 945 more or less moves it by a tenth of a point.
        Task("detector", "mAP@0.5", precision, {"image": (1, 3, 144, 192)}, 1.0),
        Task(
            "gauge",
            "explained variance %",
            variance,
            {"image": (1, 3, gauge_score.SIDE, gauge_score.SIDE)},
            0.3,
            gauge_score.QUANTITIES,
        ),
    )
}
