"""What labels tell before anything runs: whether a metric can use them at all."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgebm.data.classes import is_one_hot
from edgebm.data.metrics import Metric
from edgebm.data.scores import SKIPPED_TOKEN, whole_numbers
from edgebm.data.segmentation import SKIPPED_PIXEL
from edgebm.data.two_classes import OF_TWO, two_class_faults
from edgebm.errors import DataError
from edgebm.spec import TensorSpec

LABEL_HINT = "check that samples and labels are those of this model and its preprocessing"
_ENOUGH = 2
_TOP_K = {"top1": 1, "top5": 5}
_BY_CLASS = {"top1", "top5", "accuracy", "f1"}
# Outputs of text models that are no scores, whatever their width.
_VECTORS = {"sentence_embedding", "last_hidden_state"}
_CORRELATIONS = {"spearman", "pearson"}


def label_faults(
    metric: Metric, outputs: Sequence[TensorSpec], labels: NDArray[Any]
) -> Iterator[str]:
    """Why `metric` cannot use these labels, each with what to do; nothing for user metrics.

    Args:
        metric: built in; its output is looked up in `outputs`.
        outputs: of the model; free axes are not judged.
        labels: array [samples, ...].
    """
    spec = _judged(metric, outputs)
    if spec is None:
        return
    one = int(np.prod(labels.shape[1:]))
    if metric.name in _BY_CLASS and spec.name in _VECTORS:
        yield (
            f"output '{spec.name}' is a vector and no scores of classes, which {metric.name} "
            "reads: give a model with a classifier, or a measure of your own, --eval m:function"
        )
    elif metric.name in _TOP_K and labels.ndim == 2 and is_one_hot(labels):
        yield (
            f"labels {list(labels.shape)} are one-hot rows, and {metric.name} takes one class "
            "number a sample: use labels.argmax(axis=1)"
        )
    elif metric.name in OF_TWO:
        yield from two_class_faults(metric.name, _size(spec), labels)
    elif metric.name in _BY_CLASS and not (metric.name not in _TOP_K and _size(spec) == one):
        yield from _class_faults(metric, labels, *_classes(spec, one))
    elif metric.name in _BY_CLASS:
        wrong = labels[~np.isin(labels, (0, 1))]
        if wrong.size:
            yield f"a label is {wrong[0]}, and one for a single score must be 0 or 1"
    elif metric.name == "mean_iou":
        yield from _class_faults(metric, labels, _planes(spec, labels), None)
    else:
        yield from _value_faults(metric, spec, labels, one)


def label_warnings(
    metric: Metric, outputs: Sequence[TensorSpec], labels: NDArray[Any]
) -> Iterator[str]:
    """What is odd about usable labels."""
    spec = _judged(metric, outputs)
    if spec is None or len(labels) < _ENOUGH:
        return
    if metric.name not in _TOP_K and labels.ndim == 2 and is_one_hot(labels):
        yield (
            f"labels {list(labels.shape)} look like one-hot rows, and {metric.name} compares "
            "every number in them: for one class a sample give labels.argmax(axis=1)"
        )
    elif metric.name in _BY_CLASS and (labels == labels.flat[0]).all():
        yield (
            f"all {len(labels)} labels are class {_plain(labels.flat[0])}: what happens to the "
            "other classes cannot be seen; evaluate on samples of all"
        )


def _class_faults(
    metric: Metric, labels: NDArray[Any], classes: int | None, places: int | None
) -> Iterator[str]:
    """`classes` is how many the output has, `places` how many labels a sample; None: unknown."""
    try:
        numbers = whole_numbers(labels)
    except DataError as fault:
        yield f"{fault}, and {metric.name} needs classes: {fault.hint}"
        return
    one = int(np.prod(labels.shape[1:]))
    if places is not None and places != one:
        yield f"a sample has {one} labels, and the output has room for {places}"
        return
    if metric.name == "mean_iou":
        counted = numbers[(numbers >= 0) & (numbers != SKIPPED_PIXEL)]
    else:
        counted = numbers[numbers != SKIPPED_TOKEN]
    if classes is None or not counted.size:
        return
    top = _TOP_K.get(metric.name, 0)
    if top >= classes:
        yield f"{metric.name} of only {classes} classes is always right: use --metric top1"
    low, high = int(counted.min()), int(counted.max())
    wrong = int(((counted < 0) | (counted >= classes)).sum())
    if low == 1 and high == classes:
        yield (
            f"labels go from 1 to {classes}, and the model's {classes} classes count from 0: "
            "they seem to start at 1; use labels - 1"
        )
    elif wrong:
        yield (
            f"{wrong} of {counted.size} labels are none of the model's {classes} classes, 0 to "
            f"{classes - 1}: labels go from {low} to {high}; give class numbers in the order of "
            "the model's output"
        )


def _value_faults(
    metric: Metric, spec: TensorSpec, labels: NDArray[Any], one: int
) -> Iterator[str]:
    if labels.dtype.kind not in "iufb":
        yield f"{labels.dtype.name} labels are not numbers, which {metric.name} compares"
        return
    size = _size(spec)
    if size is not None and size != one:
        yield (
            f"labels {list(labels.shape)} do not fit the output {spec}: {metric.name} compares "
            "number by number"
        )
    if metric.name in _CORRELATIONS and (labels == labels.flat[0]).all():
        yield (
            f"all {labels.size} labels are {_plain(labels.flat[0])}, so {metric.name} is not "
            "defined: use more samples or --metric mse"
        )


def _judged(metric: Metric, outputs: Sequence[TensorSpec]) -> TensorSpec | None:
    if metric.function is not None:
        return None
    if metric.output is None:
        return outputs[0]
    return next((spec for spec in outputs if spec.name == metric.output), None)


def _size(spec: TensorSpec) -> int | None:
    """Values of one sample; None where an axis beside the batch is free."""
    shape = [1 if k == 0 and isinstance(d, str) else d for k, d in enumerate(spec.shape)]
    known = [d for d in shape if isinstance(d, int)]
    return int(np.prod(known)) if len(known) == len(shape) else None


def _classes(spec: TensorSpec, one: int) -> tuple[int | None, int | None]:
    """Classes of the output, and places of a sample that each have a label."""
    size, last = _size(spec), spec.shape[-1] if spec.shape else None
    if not isinstance(last, int) or last < 1:
        return None, None
    if one == 1 and size is not None:
        # One label takes every score, whatever axes of size 1 stand around them.
        last = max(dim for dim in spec.shape if isinstance(dim, int))
    return last, None if size is None else size // last


def _planes(spec: TensorSpec, labels: NDArray[Any]) -> int | None:
    """Classes of a [1, C, H, W] or [1, H, W, C] output; None for class numbers or free sizes."""
    size, pixels = _size(spec), int(np.prod(labels.shape[1:]))
    if size is None or len(spec.shape) < 2 or not pixels or size <= pixels:
        return None
    ends = {spec.shape[1], spec.shape[-1]}
    return size // pixels if size % pixels == 0 and size // pixels in ends else None


def _plain(value: Any) -> str:
    return f"{float(value):g}"
