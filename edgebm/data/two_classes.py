"""Sensitivity and specificity: how many of the sick, and of the healthy, are told as such."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgebm.data.classes import Assessment
from edgebm.data.scores import ClassCount
from edgebm.errors import DataError

# Metric -> the class whose recall it is. Class 1 is what is looked for.
OF_TWO: Mapping[str, int] = {"sensitivity": 1, "specificity": 0}


class OneOfTwo:
    """Points of 100: the recall of one of two classes.

    Output [1, 2] with a label of 0 or 1, where the higher score counts; or one score, which
    counts by a threshold as for accuracy.

    Source:
        Altman & Bland 1994, BMJ 308, 1552.
    """

    def __init__(self, name: str) -> None:
        self._name, self._count = name, ClassCount("accuracy")

    def add(self, output: NDArray[Any], label: NDArray[Any]) -> None:
        if output.size > 2 or label.size != 1 or label.flat[0] not in (0, 1):
            raise DataError(
                f"{self._name} takes one or two scores and a label of 0 or 1, not output "
                f"{list(output.shape)} with label {label.tolist()}"
            )
        self._count.add(output, label)

    def result(self) -> Assessment:
        classes = self._count.result().classes
        wanted = OF_TWO[self._name]
        if classes is None or wanted not in classes.labels:
            raise DataError(f"{self._name} needs samples with the label {wanted}")
        return Assessment(classes.values[classes.labels.index(wanted)], classes)


def two_class_faults(name: str, size: int | None, labels: NDArray[Any]) -> Iterator[str]:
    """Why sensitivity or specificity (`name`) cannot be told from these labels.

    `size` is how many values the output has for a sample; None: unknown.
    """
    if int(np.prod(labels.shape[1:])) != 1:
        yield f"labels {list(labels.shape)} are several a sample, and {name} takes one of 0 and 1"
        return
    wrong = labels[~np.isin(labels, (0, 1))]
    if wrong.size:
        yield (
            f"a label is {wrong.flat[0]}, and {name} takes 0 (what is not looked for) and 1 "
            "(what is): of more classes make two, or write a metric of your own"
        )
    elif not (labels == OF_TWO[name]).any():
        yield f"no label is {OF_TWO[name]}, so that {name} cannot be told"
    if size is not None and size > 2:
        yield f"the output has {size} scores, and {name} takes one, or one for each of two classes"
