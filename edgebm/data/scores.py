"""Running scores behind the built-in metrics: one output and one label at a time."""

from __future__ import annotations

import math
from typing import Any, Literal, Protocol

import numpy as np
from numpy.typing import NDArray

from edgebm.data.classes import Assessment, Chance, Tally, listed
from edgebm.data.significance import NOT_JUDGED
from edgebm.errors import DataError

Array = NDArray[Any]
SQNR_LIMIT = 150.0
SKIPPED_TOKEN = -100


class Score(Protocol):
    """`add` takes one sample: its output (batch axis of 1 or none) and its label."""

    def add(self, output: Array, label: Array) -> None: ...

    def result(self) -> Assessment: ...


class TopK:
    """Points of 100: how often the label is among the `k` highest of C scores.

    Output [1, C] with a single label, or [1, T, C] with labels [T], where label -100 is left
    out. Ties count for the class with the lower number, as in `argmax`.
    """

    def __init__(self, k: int) -> None:
        self._k, self._tally = k, Tally()
        self._verdicts: bytearray | None = bytearray()  # one for each sample of one label

    def add(self, output: Array, label: Array) -> None:
        scores, labels = class_scores(output, label)
        if scores.shape[1] <= self._k:
            raise DataError(f"top{self._k} of only {scores.shape[1]} classes is always right")
        best = np.argsort(-scores, axis=1, kind="stable")[:, : self._k]
        right = (best == labels[:, None]).any(axis=1)
        self._tally.add(labels, right, best)
        if label.size != 1:
            self._verdicts = None
        elif self._verdicts is not None:
            self._verdicts.append(int(right[0]) if right.size else NOT_JUDGED & 0xFF)

    def result(self) -> Assessment:
        value = _points(self._tally.hits, self._tally.seen)
        classes = self._tally.classes("recall" if self._k == 1 else f"top-{self._k} recall")
        kept = self._verdicts
        verdicts = None if kept is None else np.array(kept, np.uint8).view(np.int8)
        return Assessment(value, classes, verdicts, self._tally.chance())


class ClassCount:
    """Accuracy, or macro F1 (unweighted mean over classes seen), in points of 100.

    Class scores [1, C] count by the highest one. One score per label ([1], [1, 1] or [1, K]
    with K labels of 0 and 1) counts by a threshold: 0.5 when all scores of the run lie in
    [0, 1], else 0, for logits. With K > 1 labels F1 is the mean over the K columns.
    """

    def __init__(self, kind: Literal["accuracy", "f1"]) -> None:
        self._kind = kind
        self._outputs: list[Array] = []
        self._labels: list[Array] = []
        self._by_threshold, self._single = False, True

    def add(self, output: Array, label: Array) -> None:
        self._by_threshold = output.size == label.size
        self._single = self._single and label.size == 1 and label.flat[0] != SKIPPED_TOKEN
        if self._by_threshold:
            values = label.reshape(-1)
            if not np.isin(values, (0, 1)).all():
                raise DataError("a label for one score must be 0 or 1")
            self._outputs.append(output.reshape(-1).astype(np.float32))
            self._labels.append(values.astype(np.int64))
            return
        scores, labels = class_scores(output, label)
        self._outputs.append(scores.argmax(axis=1))
        self._labels.append(labels)

    def result(self) -> Assessment:
        labels, guesses = self._stacked(self._labels), self._stacked(self._outputs)
        if self._by_threshold:
            probabilities = guesses.min() >= 0 and guesses.max() <= 1
            guesses = (guesses > (0.5 if probabilities else 0)).astype(np.int64)
            if labels.shape[1] > 1:
                return self._columns(guesses, labels)
            guesses, labels = guesses[:, 0], labels[:, 0]
        tally = Tally()
        tally.add(labels, guesses == labels, guesses)
        accuracy = _points(tally.hits, tally.seen)
        if self._kind == "accuracy":
            verdicts = (guesses == labels).astype(np.int8) if self._single else None
            return Assessment(accuracy, tally.classes("recall"), verdicts, tally.chance())
        counts = np.bincount(labels, minlength=int(guesses.max(initial=0)) + 1)
        values = np.zeros(len(counts))
        seen = np.union1d(guesses, labels)
        values[seen] = [100 * _f1(guesses, labels, each) for each in seen]
        classes = listed("F1", counts, values, np.flatnonzero(counts))
        return Assessment(float(values[seen].mean()), classes)

    def _columns(self, guesses: Array, labels: Array) -> Assessment:
        """Several yes-or-no labels for each sample [N, K]: a class is a column."""
        counts = labels.sum(axis=0)
        present = np.flatnonzero(counts)
        if self._kind == "accuracy":
            recalls = 100 * (guesses * labels).sum(axis=0) / np.maximum(1, counts)
            value = _points(int((guesses == labels).sum()), labels.size)
            return Assessment(value, listed("recall", counts, recalls, present))
        columns = range(labels.shape[1])
        values = np.array([100 * _f1(guesses[:, k], labels[:, k], 1) for k in columns])
        return Assessment(float(values.mean()), listed("F1", counts, values, present))

    def _stacked(self, rows: list[Array]) -> Array:
        return np.stack(rows) if self._by_threshold else np.concatenate(rows)


class Correlation:
    """Pearson's r, or Spearman's rank correlation with ties at their mean rank, times 100.

    Outputs that never change correlate with nothing: 0.
    """

    def __init__(self, *, ranked: bool) -> None:
        self._ranked = ranked
        self._outputs: list[Array] = []
        self._labels: list[Array] = []

    def add(self, output: Array, label: Array) -> None:
        outputs, labels = same_size(output, label)
        self._outputs.append(outputs)
        self._labels.append(labels)

    def result(self) -> Assessment:
        outputs, labels = np.concatenate(self._outputs), np.concatenate(self._labels)
        if labels.min() == labels.max():
            raise DataError(
                "all labels are equal, so nothing can correlate with them",
                hint="use more samples or --metric mse",
            )
        # Of values that have nothing to do with each other: mean 0, variance 1 / (n - 1).
        chance = Chance(0.0, 100 / math.sqrt(labels.size - 1), labels.size)
        if not np.isfinite(outputs).all() or outputs.min() == outputs.max():
            return Assessment(0.0, chance=chance)
        if self._ranked:
            outputs, labels = mean_ranks(outputs), mean_ranks(labels)
        return Assessment(100 * float(np.corrcoef(outputs, labels)[0, 1]), chance=chance)


class SquaredError:
    """Mean squared error, or 10 log10(sum label^2 / sum (label - output)^2) in dB."""

    def __init__(self, kind: Literal["mse", "sqnr"]) -> None:
        self._kind = kind
        self._signal, self._noise, self._size = 0.0, 0.0, 0

    def add(self, output: Array, label: Array) -> None:
        outputs, labels = same_size(output, label)
        self._signal += float(labels @ labels)
        self._noise += float((labels - outputs) @ (labels - outputs))
        self._size += labels.size

    def result(self) -> Assessment:
        if self._kind == "mse":
            return Assessment(self._noise / max(1, self._size))
        return Assessment(decibels(self._signal, self._noise))


def class_scores(output: Array, label: Array) -> tuple[Array, Array]:
    """Scores [P, C] and class numbers [P], where P is 1 or the positions of a sequence.

    Raises:
        DataError: labels that are no class numbers, or an output that has no classes for them.
    """
    labels = whole_numbers(label)
    scores = output[0] if output.ndim > 1 and output.shape[0] == 1 else output
    if labels.size == 1:
        scores = scores.reshape(1, -1) if max(scores.shape, default=0) == scores.size else scores
    if scores.ndim < 2 or scores[..., 0].size != labels.size or scores.shape[-1] < 2:
        raise DataError(
            f"output {list(output.shape)} has no class scores for label {list(label.shape)}"
        )
    scores = scores.reshape(labels.size, -1)
    counted = labels != SKIPPED_TOKEN
    scores, labels = scores[counted], labels[counted]
    wrong = labels[(labels < 0) | (labels >= scores.shape[1])]
    if wrong.size:
        raise DataError(
            f"label {wrong[0]}, but the output has {scores.shape[1]} classes from 0",
            hint="labels are class numbers from 0, in the order of the model's output",
        )
    return scores, labels


def same_size(output: Array, label: Array) -> tuple[Array, Array]:
    """Both as float64 [n]. Raises DataError when the sizes differ or labels are not finite."""
    if output.size != label.size:
        raise DataError(f"output {list(output.shape)} does not fit label {list(label.shape)}")
    if label.dtype.kind not in "iufb":
        raise DataError(f"{label.dtype.name} labels are not numbers")
    labels = label.reshape(-1).astype(np.float64)
    if not np.isfinite(labels).all():
        raise DataError("the label is not finite")
    return output.reshape(-1).astype(np.float64), labels


def whole_numbers(values: Array) -> Array:
    """Class numbers as int64 [n]; floats pass when they are whole (float files are common).

    Raises:
        DataError: 0.5 is no class.
    """
    if values.dtype.kind not in "iufb" or not np.array_equal(values, np.trunc(values)):
        raise DataError(
            f"labels are not class numbers: {values.dtype.name}, for example {values.flat[0]}",
            hint="give whole numbers from 0, or choose a metric for values: mse, pearson",
        )
    return values.reshape(-1).astype(np.int64)


def mean_ranks(values: Array) -> Array:
    """Ranks from 1 of a vector [n]; equal values share the mean of their ranks."""
    _, where, counts = np.unique(values, return_inverse=True, return_counts=True)
    last = np.cumsum(counts)
    ranks: Array = (last - (counts - 1) / 2)[where]
    return ranks


def decibels(signal: float, noise: float) -> float:
    """10 log10(signal / noise), kept within +-SQNR_LIMIT, which stands for equal and for lost."""
    if not (math.isfinite(signal) and math.isfinite(noise)):
        return -SQNR_LIMIT
    if noise == 0:
        return SQNR_LIMIT
    if signal == 0:
        return -SQNR_LIMIT
    return max(-SQNR_LIMIT, min(SQNR_LIMIT, 10 * math.log10(signal / noise)))


def _f1(guesses: Array, labels: Array, positive: int) -> float:
    """2 TP / (2 TP + FP + FN); 0 when the class is in neither."""
    hits = int(((guesses == positive) & (labels == positive)).sum())
    total = int((guesses == positive).sum()) + int((labels == positive).sum())
    return 2 * hits / total if total else 0.0


def _points(hits: int, seen: int) -> float:
    if not seen:
        raise DataError("no label counts", hint="labels of -100 are left out; give others too")
    return 100 * hits / seen
