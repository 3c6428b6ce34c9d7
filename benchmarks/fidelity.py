"""How far answers are from the float model's, and whether that is more than chance."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from numpy.typing import NDArray
from tasks import Arrays, Task, hits

from edgebm.data.agreement import sqnr_db


def decibels(task: Task, want: Arrays, got: Arrays) -> dict[str, float]:
    """Signal-to-quantization-noise ratio of each part of the outputs, over all samples."""
    reference, compared = task.parts(want), task.parts(got)
    return {name: sqnr_db(array, compared[name]) for name, array in reference.items()}


def mcnemar(before: NDArray[Any], after: NDArray[Any]) -> float:
    """Two-sided p of the exact McNemar test (binomial) for right answers [n] of two models.

    Only samples that one of them alone has right count; without a difference each is as likely
    to win one.
    """
    lost, won = int((before & ~after).sum()), int((after & ~before).sum())
    count = lost + won
    tail = sum(math.comb(count, k) for k in range(min(lost, won) + 1))
    return min(1.0, 2 * tail / 2**count)


def figures(
    task: Task, labels: NDArray[Any], outputs: Mapping[str, Arrays], reference: str
) -> dict[str, dict[str, Any]]:
    """Of each contender: ``score``, ``drop``, ``sqnr_db`` by part and, for top-1, ``p``."""
    float_score = task.value(outputs[reference], labels)
    found = {}
    for name, each in outputs.items():
        score = task.value(each, labels)
        row: dict[str, Any] = {"score": score, "drop": float_score - score}
        row["sqnr_db"] = decibels(task, outputs[reference], each)
        if task.is_top1:
            row["p"] = mcnemar(hits(outputs[reference], labels), hits(each, labels))
        found[name] = row
    return found
