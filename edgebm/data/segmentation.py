"""Mean intersection over union of label maps, counted one image at a time."""

from __future__ import annotations

import numpy as np

from edgebm.data.classes import Assessment, listed
from edgebm.data.scores import Array, whole_numbers
from edgebm.errors import DataError

SKIPPED_PIXEL = 255


class Iou:
    """Mean over classes of intersection / union, in points of 100.

    Output [1, C, H, W] or [1, H, W, C] class scores, or [1, H, W] class numbers; label [H, W].
    Pixels labelled 255 or below 0 are left out, as are classes that appear nowhere.
    """

    def __init__(self) -> None:
        self._counts = np.zeros((0, 0), np.int64)
        self._images = np.zeros(0, np.int64)  # in whose labels each class is

    def add(self, output: Array, label: Array) -> None:
        wanted = whole_numbers(label)
        guesses, classes = _class_map(output, wanted.size, label)
        keep = (wanted >= 0) & (wanted != SKIPPED_PIXEL)
        wanted, guesses = wanted[keep], guesses[keep]
        highest = int(wanted.max(initial=0))
        if classes and highest >= classes:
            raise DataError(f"label {highest}, but the output has {classes} classes")
        size = max(len(self._counts), classes, highest + 1, int(guesses.max(initial=0)) + 1)
        counts = np.bincount(wanted * size + guesses, minlength=size * size).reshape(size, size)
        counts[: len(self._counts), : len(self._counts)] += self._counts
        self._counts = counts
        images = (np.bincount(wanted, minlength=size) > 0).astype(np.int64)
        images[: len(self._images)] += self._images
        self._images = images

    def result(self) -> Assessment:
        both = np.diag(self._counts)
        union = self._counts.sum(axis=0) + self._counts.sum(axis=1) - both
        if not union.any():
            raise DataError(
                "no pixel has a label that counts",
                hint="255 and numbers below 0 are left out; check how the labels were saved",
            )
        values = 100 * both / np.maximum(1, union)
        classes = listed("IoU", self._images, values, np.flatnonzero(self._images))
        return Assessment(float(values[union > 0].mean()), classes)


def _class_map(output: Array, pixels: int, label: Array) -> tuple[Array, int]:
    """Class of each pixel [pixels], and the number of classes (0 when the output tells none)."""
    scores = output[0] if output.ndim > 1 and output.shape[0] == 1 else output
    if scores.size == pixels:
        guesses, classes = whole_numbers(scores), 0
    elif scores[0].size == pixels:
        guesses, classes = scores.reshape(len(scores), -1).argmax(axis=0), len(scores)
    elif scores[..., 0].size == pixels:
        guesses, classes = scores.argmax(axis=-1).reshape(-1), scores.shape[-1]
    else:
        raise DataError(f"output {list(output.shape)} does not fit label {list(label.shape)}")
    if guesses.min(initial=0) < 0:
        raise DataError("the output holds class numbers below 0")
    return guesses, classes
