"""Metrics by name: how good outputs are, given labels.

A metric reads the outputs one sample at a time, so a generator that runs the model is enough:
`metric.compute((run(feeds) for feeds in samples.feeds()), samples.labels)`.
"""

from __future__ import annotations

import difflib
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgebm.data.batch import Feeds
from edgebm.data.callables import call_user, declared, finite_number, load_callable
from edgebm.data.classes import Assessment, is_one_hot
from edgebm.data.scores import ClassCount, Correlation, Score, SquaredError, TopK
from edgebm.data.segmentation import Iou
from edgebm.data.two_classes import OneOfTwo
from edgebm.errors import DataError
from edgebm.spec import TensorSpec

Outputs = Iterable[Feeds] | Mapping[str, NDArray[Any]]


@dataclass(frozen=True, slots=True)
class Metric:
    """One number for a model. `unit` is "points" (of 100), "dB" or "" (as it is).

    `output` names the output that is judged; None is the first one. Custom metrics get all.
    """

    name: str
    unit: str
    start: Callable[[], Score] | None = None
    higher_is_better: bool = True
    function: Callable[..., Any] | None = None
    output: str | None = None

    def compute(self, outputs: Outputs, labels: NDArray[Any] | None) -> float:
        """The metric over all samples, in its unit; see `assess`."""
        return self.assess(outputs, labels).value

    def assess(self, outputs: Outputs, labels: NDArray[Any] | None) -> Assessment:
        """The metric over all samples, in its unit, with what else one sweep tells.

        Args:
            outputs: dicts of output arrays by name, one per sample, from any iterable; or one
                dict of arrays [samples, ...].
            labels: array [samples, ...].

        Raises:
            DataError: labels missing, of another count, or senseless for this metric.
        """
        if labels is None:
            raise DataError(
                f"the metric {self.name} needs labels",
                hint="add an array called labels to the samples, or give labels in a file",
            )
        rows = _unstacked(outputs) if isinstance(outputs, Mapping) else iter(outputs)
        if self.function is not None:
            return Assessment(self._custom(self.function, rows, labels))
        return self._scored(rows, labels)

    def drop(self, before: float, after: float) -> float:
        """How much worse `after` is, in the metric's unit; negative when it is better."""
        return before - after if self.higher_is_better else after - before

    def text(self, value: float) -> str:
        """The value for people, with its unit."""
        digits = 2 if self.unit else 6
        return f"{value:.{digits}f} {self.unit}".rstrip()

    def _scored(self, rows: Iterator[Feeds], labels: NDArray[Any]) -> Assessment:
        if self.start is None:
            raise TypeError(f"the metric {self.name} has neither a score nor a function")
        score, count = self.start(), 0
        for count, outputs in enumerate(rows, start=1):
            if count > len(labels):
                break
            try:
                score.add(_judged(outputs, self.output), np.asarray(labels[count - 1]))
            except DataError as fault:
                raise DataError(
                    f"{self.name}, sample {count - 1}: {fault}",
                    hint=fault.hint or "choose another --metric, or check the labels",
                ) from None
        _same_count(count, len(labels))
        return score.result()

    def _custom(
        self, function: Callable[..., Any], rows: Iterator[Feeds], labels: NDArray[Any]
    ) -> float:
        kept = list(rows)
        _same_count(len(kept), len(labels))
        stacked = {name: _stacked([outputs[name] for outputs in kept]) for name in kept[0]}
        return finite_number(call_user(self.name, function, stacked, labels), self.name)


_POINTS = "points"
BUILT_IN: Mapping[str, Metric] = {
    metric.name: metric
    for metric in (
        Metric("top1", _POINTS, lambda: TopK(1)),
        Metric("top5", _POINTS, lambda: TopK(5)),
        Metric("accuracy", _POINTS, lambda: ClassCount("accuracy")),
        Metric("f1", _POINTS, lambda: ClassCount("f1")),
        Metric("sensitivity", _POINTS, lambda: OneOfTwo("sensitivity")),
        Metric("specificity", _POINTS, lambda: OneOfTwo("specificity")),
        Metric("spearman", _POINTS, lambda: Correlation(ranked=True)),
        Metric("pearson", _POINTS, lambda: Correlation(ranked=False)),
        Metric("mse", "", lambda: SquaredError("mse"), higher_is_better=False),
        Metric("mean_iou", _POINTS, Iou),
        Metric("sqnr", "dB", lambda: SquaredError("sqnr")),
    )
}


def resolve_metric(spec: str | Callable[..., Any] | Metric) -> Metric:
    """A built-in metric by name, or `f(outputs, labels) -> float` as `module:function` or itself.

    `outputs` is a dict of arrays [samples, ...] by output name. A function declares more with
    attributes: `f.higher_is_better = False`, `f.unit = "points"`.

    Raises:
        DataError: no such metric, module or function.
    """
    if isinstance(spec, Metric):
        return spec
    if isinstance(spec, str) and spec in BUILT_IN:
        return BUILT_IN[spec]
    if isinstance(spec, str) and ":" not in spec:
        near = difflib.get_close_matches(spec, BUILT_IN, 1)
        raise DataError(
            f"there is no metric '{spec}'",
            hint=(f"did you mean '{near[0]}'? " if near else "")
            + f"built in are {', '.join(BUILT_IN)}; your own is module:function",
        )
    function = load_callable(spec) if isinstance(spec, str) else spec
    name, unit, higher = declared(spec, function)
    return Metric(name, unit, higher_is_better=higher, function=function)


def default_metric(outputs: Sequence[TensorSpec], labels: NDArray[Any]) -> Metric:
    """The metric that labels of this kind speak for.

    Integers go with top1 (labels [N] or [N, T], output one axis C more), accuracy (one score
    per label) or mean_iou (label maps, [N, C, H, W] output); floats shaped like the output
    with mse.

    Raises:
        DataError: none fits.
    """
    whole, rank = labels.dtype.kind in "iub", labels.ndim
    for spec in outputs:
        out = len(spec.shape)
        single = out == 1 or (out == 2 and spec.shape[1] == 1)
        if whole and rank == 1 and out == 2 and not single:
            return replace(BUILT_IN["top1"], output=spec.name)
        if whole and rank == 1 and single and labels.max(initial=0) <= 1:
            return replace(BUILT_IN["accuracy"], output=spec.name)
        if whole and rank >= 2 and out == rank + 1:
            fitting = "top1" if rank == 2 else "mean_iou"
            return replace(BUILT_IN[fitting], output=spec.name)
        if labels.dtype.kind == "f" and (out == rank or (single and rank == 1)):
            return replace(BUILT_IN["mse"], output=spec.name)
    raise DataError(
        f"which metric fits {labels.dtype.name} labels of shape {list(labels.shape)} and outputs "
        f"{', '.join(map(str, outputs))} is not clear",
        hint=(
            "they look like one-hot rows: give labels.argmax(axis=1) for top1"
            if rank == 2 and is_one_hot(labels)
            else f"choose with --metric: {', '.join(BUILT_IN)} or module:function"
        ),
    )


def _judged(outputs: Feeds, name: str | None) -> NDArray[Any]:
    if name is not None and name not in outputs:
        raise DataError(f"there is no output '{name}'; outputs are {', '.join(outputs)}")
    return np.asarray(outputs[name] if name is not None else next(iter(outputs.values())))


def _unstacked(outputs: Mapping[str, NDArray[Any]]) -> Iterator[Feeds]:
    for row in range(min((len(array) for array in outputs.values()), default=0)):
        yield {name: array[row : row + 1] for name, array in outputs.items()}


def _stacked(arrays: list[NDArray[Any]]) -> Any:
    """[samples, ...] when the shapes agree, else the list as it is."""
    if len({array.shape for array in arrays}) > 1:
        return arrays
    batched = arrays[0].ndim > 0 and arrays[0].shape[0] == 1
    return np.concatenate(arrays) if batched else np.stack(arrays)


def _same_count(outputs: int, labels: int) -> None:
    if outputs != labels or not labels:
        more = "at least " if outputs > labels else ""
        raise DataError(
            f"{more}{outputs} outputs for {labels} labels", hint="every sample needs one label"
        )
