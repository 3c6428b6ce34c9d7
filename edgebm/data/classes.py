"""What a metric knows beside its one number: each class, each sample, and luck."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

_ENOUGH = 100  # labels; with fewer, luck and skill can hardly be told apart
_DEVIATIONS = 2.0
_SKILL = 0.05  # of the way from guessing to perfect; less is no skill worth the name


@dataclass(frozen=True, slots=True)
class Classes:
    """A figure in points of 100 for each class that labels name, in the order of `labels`.

    `measure` says which: recall, F1, IoU. `counts` are the samples of each class.
    """

    measure: str
    labels: tuple[int, ...]
    counts: tuple[int, ...]
    values: tuple[float, ...]

    def worst(self) -> int:
        """Where the lowest figure stands; of equals the class with the most samples."""
        return min(range(len(self.labels)), key=lambda k: (self.values[k], -self.counts[k]))


@dataclass(frozen=True, slots=True)
class Chance:
    """What guesses that know nothing of the labels score, in points: mean, and deviation."""

    mean: float
    deviation: float
    labels: int

    def explains(self, value: float) -> bool:
        """Whether `value` is so near to guessing that skill cannot be seen.

        That is within two deviations, or a twentieth of the way to 100. False with fewer than
        100 labels, which prove nothing.
        """
        reach = max(_DEVIATIONS * self.deviation, _SKILL * (100 - self.mean))
        return self.labels >= _ENOUGH and abs(value) <= self.mean + reach


@dataclass(frozen=True, slots=True, eq=False)
class Assessment:
    """A metric's value, and what its sweep over the samples told beside it.

    `verdicts` is int8 [samples]: 1 for right, 0 for wrong, -1 where the label does not count;
    None where a sample has not one answer that is right or wrong.
    """

    value: float
    classes: Classes | None = None
    verdicts: NDArray[np.int8] | None = None
    chance: Chance | None = None

    def doubt(self, subject: str) -> str:
        """A sentence where `subject` (the float model) is no better than guessing; else ""."""
        if self.chance is None or not self.chance.explains(self.value):
            return ""
        return (
            f"{subject} scores {self.value:.1f} of 100 on these labels, as good as guessing "
            f"({self.chance.mean:.1f}): labels or preprocessing may not belong to this model"
        )


class Tally:
    """Labels, right answers and guesses, counted by class as they come."""

    def __init__(self) -> None:
        self._labels, self._right, self._guesses = (np.zeros(0, np.int64) for _ in range(3))

    def add(self, labels: NDArray[Any], right: NDArray[Any], guesses: NDArray[Any]) -> None:
        """Count labels [P], which of them were answered right [P], and guesses [any]."""
        self._labels = _counted(self._labels, labels)
        self._right = _counted(self._right, labels[right])
        self._guesses = _counted(self._guesses, guesses)

    @property
    def hits(self) -> int:
        return int(self._right.sum())

    @property
    def seen(self) -> int:
        return int(self._labels.sum())

    def classes(self, measure: str) -> Classes:
        """The share of each class's labels that was answered right."""
        present = np.flatnonzero(self._labels)
        right = np.zeros_like(self._labels)
        right[: len(self._right)] = self._right
        return listed(measure, self._labels, 100 * right / np.maximum(1, self._labels), present)

    def chance(self) -> Chance:
        """The share of right answers if the same guesses fell on the samples at random.

        Source:
            the expected agreement of Cohen 1960, Educ. Psychol. Meas. 20, 37-46.
        """
        shared = min(len(self._labels), len(self._guesses))
        pairs = self._labels[:shared].astype(float) @ self._guesses[:shared].astype(float)
        mean = min(1.0, pairs / max(1, self.seen) ** 2)
        deviation = math.sqrt(mean * (1 - mean) / max(1, self.seen))
        return Chance(100 * mean, 100 * deviation, self.seen)


def listed(
    measure: str, counts: NDArray[Any], values: NDArray[Any], present: NDArray[Any]
) -> Classes:
    """The classes numbered `present`, of arrays over all classes."""
    return Classes(
        measure,
        tuple(int(label) for label in present),
        tuple(int(count) for count in counts[present]),
        tuple(float(value) for value in values[present]),
    )


def class_changes(before: Classes, after: Classes) -> dict[str, Any]:
    """Both sides class by class, and the class that lost most; of equals the larger one.

    Raises:
        ValueError: the two were not rated on the same labels.
    """
    if before.labels != after.labels:
        raise ValueError("the two sides were rated on other labels")
    drops = [was - now for was, now in zip(before.values, after.values, strict=True)]
    most = max(range(len(drops)), key=lambda k: (drops[k], before.counts[k]))
    return {
        "measure": before.measure,
        "labels": [str(label) for label in before.labels],
        "counts": list(before.counts),
        "before": list(before.values),
        "after": list(after.values),
        "worst": {
            "class": str(before.labels[most]),
            "before": before.values[most],
            "after": after.values[most],
            "drop": drops[most],
        },
    }


def is_one_hot(labels: NDArray[Any]) -> bool:
    """Whether labels [N, C], C > 1, hold a single 1 in every row and zeros beside it."""
    if labels.dtype.kind not in "iufb" or labels.shape[1] < 2 or not len(labels):
        return False
    return bool(np.isin(labels, (0, 1)).all() and (labels.sum(axis=1) == 1).all())


def _counted(counts: NDArray[Any], found: NDArray[Any]) -> NDArray[Any]:
    more = np.bincount(found.reshape(-1), minlength=len(counts))
    more[: len(counts)] += counts
    return more
