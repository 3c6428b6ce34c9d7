"""A stage of a rounded graph as one to train: what is rounded in it, and its samples."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from edgebm.grad.batch_axes import batch_axes, output_axes
from edgebm.grad.module import GraphModule
from edgebm.grad.rows import Alike, Rows, join
from edgebm.grad.simulated import RoundedPoint, RoundedWeight, Simulated
from edgebm.grad.task import Part
from edgebm.ir.bias import bias_place
from edgebm.ir.edit import input_at, name
from edgebm.ir.model import Model

Row = Mapping[str, NDArray[Any]]
_TARGET = "@target "
_AT_ONCE = 64  # samples that are computed at once where there are no gradients


@dataclass(slots=True)
class StageGraph:
    """A stage with its roundings: the graph, what it reads and gives, and its samples.

    `inputs` and `targets` have one row for each sample, each array with the axes that the graph
    has.
    """

    model: Model
    weights: list[RoundedWeight]
    points: list[RoundedPoint]
    inputs: Sequence[Row] = field(default_factory=list)
    targets: Sequence[Row] = field(default_factory=list)

    @property
    def outputs(self) -> tuple[str, ...]:
        return tuple(name(value) for value in self.model.graph.graph.outputs)

    @property
    def biases(self) -> dict[str, str]:
        """The constants that hold the biases of the rounded layers, by the layers' names."""
        readers = {reader for weight in self.weights for reader in weight.readers}
        found = {}
        for node in self.model.nodes():
            place = bias_place(node) if node.name in readers else None
            value = None if place is None else input_at(*place)
            if value is not None and value.is_initializer():
                found[node.name or "?"] = name(value)
        return found


def stage_graph(whole: Simulated, model: Model) -> StageGraph:
    """The roundings of `whole` that lie in `model`, a part of its graph."""
    made = {name(v) for node in model.nodes() for v in node.outputs}
    held = model.graph.graph.initializers
    return StageGraph(
        model,
        [w for w in whole.weights if w.label in held and w.params is not None],
        [p for p in whole.points if p.label in made],
    )


class StageRows:
    """The samples of a stage by number, joined where its module answers several at once."""

    def __init__(self, stage: StageGraph, module: GraphModule) -> None:
        """`module` is that of the stage, without rounding: a flip would look like a wrong axis."""
        self._outputs = stage.outputs
        self._rows = Rows(_Stored(stage))
        self._axes: dict[str, int] | None = None
        self._out_axes: dict[str, int] = {}
        some = self._rows.picked(torch.arange(len(self._rows))[:_AT_ONCE])
        first = next((each for each in some if len(each) > 1), None)
        if first is not None:
            two = Alike(first.numbers[:2], {k: v[:2] for k, v in _inputs(first).items()})
            self._axes = batch_axes((module,), two)
            if self._axes is not None:
                self._out_axes = output_axes(module, two, self._axes)

    def __len__(self) -> int:
        return len(self._rows)

    def parts(self, numbers: Tensor) -> list[Part]:
        """These samples, in as few parts as can be computed at once."""
        return [
            Part(
                _joined(_inputs(alike), self._axes),
                _joined(_targets(alike), None if self._axes is None else self._out_axes),
                len(alike) / len(numbers),
            )
            for alike in self._alike(numbers)
        ]

    def errors(self, module: GraphModule, numbers: Tensor) -> dict[str, tuple[float, float]]:
        """The mean square of each output's error, and of the output, over these samples."""
        found = dict.fromkeys(self._outputs, (0.0, 0.0))
        for some in torch.split(numbers, _AT_ONCE):
            for part in self.parts(some):
                got = module(part.feeds, list(self._outputs))
                share = part.share * len(some) / len(numbers)
                for label, want in part.targets.items():
                    error, power = found[label]
                    error += share * float((got[label] - want).double().square().mean())
                    found[label] = error, power + share * float(want.double().square().mean())
        return found

    def answers(self, module: GraphModule) -> list[dict[str, NDArray[Any]]]:
        """What `module` makes of every sample, one row for each."""
        found: dict[int, dict[str, NDArray[Any]]] = {}
        for some in torch.split(torch.arange(len(self)), _AT_ONCE):
            for alike in self._alike(some):
                got = module(_joined(_inputs(alike), self._axes), list(self._outputs))
                for i, number in enumerate(alike.numbers.tolist()):
                    found[number] = {k: self._row(k, v, i, len(alike)) for k, v in got.items()}
        return [found[number] for number in range(len(self))]

    def _alike(self, numbers: Tensor) -> list[Alike]:
        alike = self._rows.picked(numbers)
        if self._axes is not None:
            return alike
        return [one for each in alike for one in each.single()]

    def _row(self, label: str, joined: Tensor, i: int, count: int) -> NDArray[Any]:
        """Sample `i` of the `count` that were joined."""
        if self._axes is None:
            return np.array(joined.numpy())
        axis = self._out_axes[label]
        each = joined.shape[axis] // count
        return np.array(joined.narrow(axis, i * each, each).numpy())


class _Stored:
    """Inputs and targets of each sample in one row."""

    def __init__(self, stage: StageGraph) -> None:
        self._stage = stage

    def __len__(self) -> int:
        return len(self._stage.inputs)

    def feeds(self, start: int = 0, stop: int | None = None) -> Iterable[Row]:
        pairs = zip(self._stage.inputs[start:stop], self._stage.targets[start:stop], strict=True)
        for inputs, targets in pairs:
            yield {**inputs, **{_TARGET + k: targets[k] for k in self._stage.outputs}}


def _inputs(part: Alike) -> dict[str, Tensor]:
    return {k: v for k, v in part.columns.items() if not k.startswith(_TARGET)}


def _targets(part: Alike) -> dict[str, Tensor]:
    return {k.removeprefix(_TARGET): v for k, v in part.columns.items() if k.startswith(_TARGET)}


def _joined(columns: Mapping[str, Tensor], axes: Mapping[str, int] | None) -> dict[str, Tensor]:
    """Columns [K, ...] as feeds of all K samples at once; K is 1 where there are no axes."""
    if axes is None:
        return {k: v[0] for k, v in columns.items()}
    return {k: join(v, axes[k]) for k, v in columns.items()}
