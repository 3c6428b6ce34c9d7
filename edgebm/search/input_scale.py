"""Do the samples look like those of the training? What the first layers can tell about it."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray

from edgebm.data.samples import Samples
from edgebm.exec.collect import FloatRunner
from edgebm.ir.edit import const, name, remove_dead
from edgebm.ir.face import layout_of
from edgebm.ir.model import Model
from edgebm.ir.traits import MATMULS, is_float

_LOOKED_AT = 32
_MOVED = 1.0  # deviations
_WIDER = 2.0
_LEAST_VALUES = 16  # per channel; the mean of fewer says little
_PIXELS = (20.0, 255.0)  # the largest value of raw images lies between
_SHAPING = {"Transpose", "Reshape", "Flatten", "Squeeze", "Unsqueeze", "Pad", "Cast"}


def scale_warnings(model: Model, samples: Samples) -> Iterator[str]:
    """Sentences where samples seem to be scaled otherwise than those the model was trained on.

    A BatchNormalization remembers mean and variance of what it saw in training. Those of the
    first one are compared with what a few samples give, in float. Without one, inputs are only
    looked at for raw pixels that go into a layer unscaled. An exchange of colours cannot be seen.

    Args:
        model: canonical, BatchNormalization not yet folded.
        samples: a few of them are run.

    Raises:
        DataError: the model does not run on a sample.
    """
    some = samples.subset(_LOOKED_AT)
    norm = next((bn for bn in model.nodes("BatchNormalization") if _statistics(bn)), None)
    seen = _input_figures(model, some)
    if not seen:
        return
    if norm is None:
        yield from _raw_pixels(model, seen)
        return
    shift, width = _compare(model, norm, some)
    if shift is None or width is None:
        return
    if shift > _MOVED or not 1 / _WIDER <= width <= _WIDER:
        inputs = "; ".join(f"'{key}' has {seen[key]}" for key in seen)
        yield (
            f"the samples may be scaled otherwise than in training: what reaches the first "
            f"BatchNormalization ({norm.name}) lies {shift:.1f} deviations from the mean that it "
            f"saw in training and is {width:.3g} times as wide (median of the channels). "
            f"Input {inputs}: is the normalization right?"
        )


@dataclass(slots=True)
class _Figures:
    """Running figures of one input."""

    low: float = math.inf
    high: float = -math.inf
    total: float = 0.0
    count: int = 0
    whole: bool = True

    def add(self, values: NDArray[Any]) -> None:
        self.low, self.high = (
            min(self.low, float(values.min())),
            max(self.high, float(values.max())),
        )
        self.total += float(values.sum(dtype=np.float64))
        self.count += values.size
        self.whole = self.whole and bool((values == np.trunc(values)).all())

    def __str__(self) -> str:
        mean = self.total / max(1, self.count)
        return f"mean {mean:.3g}, range [{self.low:.3g}, {self.high:.3g}]"


def _input_figures(model: Model, samples: Samples) -> dict[str, _Figures]:
    values = model.graph.graph.inputs
    found = {name(v): _Figures() for v in values if is_float(v) or layout_of(v)}
    for feeds in samples.feeds():
        for key, figures in found.items():
            if feeds[key].size:
                figures.add(feeds[key])
    return {key: figures for key, figures in found.items() if figures.count}


def _raw_pixels(model: Model, seen: Mapping[str, _Figures]) -> Iterator[str]:
    for value in model.graph.graph.inputs:
        figures = seen.get(name(value))
        if figures is None or not figures.whole or len(value.shape or ()) < 3:
            continue
        if figures.low < 0 or not _PIXELS[0] < figures.high <= _PIXELS[1]:
            continue
        layer = next(_first_layers(value), None)
        if layer is not None:
            yield (
                f"input '{value.name}' holds whole numbers, {figures}, like raw pixels, and "
                f"{layer.name} ({layer.op_type}) takes them unscaled: if the model was trained on "
                "scaled values, scale these in the same way"
            )


def _first_layers(value: ir.Value) -> Iterator[ir.Node]:
    """Layers that read `value` as it is, but for its shape."""
    for use in value.uses():
        if use.node.op_type in MATMULS:
            yield use.node
        elif use.node.op_type in _SHAPING:
            yield from _first_layers(use.node.outputs[0])


def _statistics(bn: ir.Node) -> tuple[NDArray[Any], NDArray[Any]] | None:
    """Mean and variance [C] that `bn` knows from training; None where it knows none."""
    mean, variance = const(bn.inputs[3]), const(bn.inputs[4])
    if mean is None or variance is None:
        return None
    untrained = not mean.any() and bool((variance == 1).all())  # as every framework starts
    return None if untrained else (mean, variance)


def _compare(
    model: Model, bn: ir.Node, samples: Samples
) -> tuple[float, float] | tuple[None, None]:
    """How far the values before `bn` lie from the mean it was trained with, and how wide.

    Both in deviations of the training, as medians over the channels; None for too few values.
    """
    known = _statistics(bn)
    value = bn.inputs[0]
    assert known is not None
    assert value is not None
    mean, variance = (array.astype(np.float64) for array in known)
    deviation = np.sqrt(np.maximum(variance, 0) + bn.attributes.get_float("epsilon", 1e-5))
    runner = FloatRunner(_up_to(model, name(value)), [name(value)])
    sums, squares, count = np.zeros_like(mean), np.zeros_like(mean), 0
    for feeds in samples.feeds():
        got = np.moveaxis(runner.run(feeds)[name(value)], 1, 0).reshape(len(mean), -1)
        scaled = (got - mean[:, None]) / deviation[:, None]
        sums += scaled.sum(axis=1)
        squares += (scaled**2).sum(axis=1)
        count += scaled.shape[1]
    if count < _LEAST_VALUES:
        return None, None
    shifts = sums / count
    widths = np.sqrt(np.maximum(0, squares / count - shifts**2))
    return float(np.median(np.abs(shifts))), float(np.median(widths))


def _up_to(model: Model, value_name: str) -> Model:
    """The part of the model that computes this value."""
    part = model.clone()
    graph = part.graph.graph
    value = next((v for node in graph for v in node.outputs if v.name == value_name), None)
    if value is not None:
        graph.outputs.clear()
        graph.outputs.append(value)
        remove_dead(graph)
    return part
