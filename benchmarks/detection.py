"""From the raw tensors of the benchmark's detector to boxes and their mean average precision."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache

import numpy as np
from numpy.typing import NDArray

HEIGHT, WIDTH = 144, 192
STRIDES = (8, 16)
KEPT = 100  # detections of an image, at most
LEAST_SCORE = 0.05
OVERLAP = 0.5
Array = NDArray[np.float32]


@cache
def centres() -> Array:
    """Centre of each anchor cell in pixels and its stride: [cells, 3] (x, y, stride)."""
    rows = []
    for stride in STRIDES:
        y, x = np.mgrid[0 : HEIGHT // stride, 0 : WIDTH // stride]
        sides = np.full(x.size, stride)
        rows.append(np.stack([(x.ravel() + 0.5) * stride, (y.ravel() + 0.5) * stride, sides], 1))
    return np.concatenate(rows).astype(np.float32)


def decode(distances: Array) -> Array:
    """Distances to the left, top, right, bottom in pixels [cells, 4] as corners [cells, 4]."""
    middle = centres()[:, :2]
    return np.concatenate([middle - distances[:, :2], middle + distances[:, 2:]], axis=1)


def overlaps(first: Array, second: Array) -> Array:
    """Intersection over union of boxes [n, 4] and [m, 4] as [n, m]."""
    low = np.maximum(first[:, None, :2], second[None, :, :2])
    high = np.minimum(first[:, None, 2:], second[None, :, 2:])
    shared = np.clip(high - low, 0, None).prod(-1)
    union = _areas(first)[:, None] + _areas(second)[None] - shared
    return np.asarray(shared / np.maximum(union, 1e-6), np.float32)


def _areas(boxes: Array) -> Array:
    return np.asarray(np.clip(boxes[:, 2:] - boxes[:, :2], 0, None).prod(1), np.float32)


def suppress(boxes: Array, scores: Array) -> list[int]:
    """Greedy non-maximum suppression: indices that stay, the highest score first."""
    order = np.argsort(-scores, kind="stable")[: 4 * KEPT]
    close = overlaps(boxes[order], boxes[order]) > OVERLAP
    alive = np.ones(len(order), dtype=bool)
    kept: list[int] = []
    for place, index in enumerate(order):
        if alive[place] and len(kept) < KEPT:
            kept.append(int(index))
            alive &= ~close[place]
    return kept


def detections(logits: Array, distances: Array, label: int) -> tuple[Array, Array]:
    """Boxes [k, 4] and probabilities [k] of one class of one image, the surest first."""
    scores = 1 / (1 + np.exp(-np.clip(logits[:, label].astype(np.float64), -60, 60)))
    chosen = np.flatnonzero(scores > LEAST_SCORE)
    boxes, sure = decode(distances)[chosen], scores[chosen].astype(np.float32)
    kept = suppress(boxes, sure)
    return boxes[kept], sure[kept]


def average_precision(hits: NDArray[np.bool_], scores: Array, truths: int) -> float:
    """Area under precision over recall, with precision made monotone (PASCAL VOC 2010)."""
    order = np.argsort(-scores, kind="stable")
    found = np.cumsum(hits[order])
    precision = found / np.arange(1, len(order) + 1)
    precision = np.maximum.accumulate(precision[::-1])[::-1]
    steps = np.diff(found / truths, prepend=0.0)
    return float((precision * steps).sum())


def _matches(boxes: Array, truth: Array) -> NDArray[np.bool_]:
    """Which detections, the surest first, are the first to find a box of the truth."""
    hits = np.zeros(len(boxes), dtype=bool)
    if not len(boxes) or not len(truth):
        return hits
    near = overlaps(boxes, truth)
    free = np.ones(len(truth), dtype=bool)
    for index, row in enumerate(near):
        best = int(row.argmax())
        if row[best] >= OVERLAP and free[best]:
            hits[index], free[best] = True, False
    return hits


def mean_average_precision(
    logits: Sequence[Array], distances: Sequence[Array], truths: Array
) -> float:
    """Points of 100 at an overlap of 0.5, the mean over the classes that occur.

    Args:
        logits: of each image [cells, classes].
        distances: of each image [cells, 4] in pixels.
        truths: [images, most, 5]: corners in pixels and the class, which is -1 where there is
            no box.
    """
    precisions = []
    for label in range(np.asarray(logits[0]).shape[-1]):
        hits, scores, count = [], [], 0
        for one, sides, truth in zip(logits, distances, truths, strict=True):
            wanted = truth[truth[:, 4] == label, :4]
            boxes, sure = detections(np.asarray(one), np.asarray(sides), label)
            hits.append(_matches(boxes, wanted))
            scores.append(sure)
            count += len(wanted)
        if count:
            found = np.concatenate(hits), np.concatenate(scores)
            precisions.append(average_precision(*found, count))
    return 100 * float(np.mean(precisions)) if precisions else 0.0
