"""The rounding of the weights of one stage, learned from what the stage shall give."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from edgebm.grad.batch_axes import batch_axes, output_axes
from edgebm.grad.batches import Shuffled
from edgebm.grad.fake_quantize import LearnedStep
from edgebm.grad.fit import Part, Schedule, Task, fit
from edgebm.grad.module import GraphModule
from edgebm.grad.rows import Alike, Rows, join
from edgebm.grad.simulated import RoundedPoint, RoundedWeight, Simulated
from edgebm.grad.soft_rounding import Reconstruction, SoftRounding, start
from edgebm.ir.bias import bias_place
from edgebm.ir.edit import add_const, const, input_at, name
from edgebm.ir.model import Model

Row = Mapping[str, NDArray[Any]]
_TARGET = "@target "
_JUDGED = 64  # samples that are computed at once where there are no gradients
_TINY = 1e-12
_DECISIONS = 40  # in how many turns weights are decided
_DECIDED_AT = 0.95  # of the steps: from then on biases alone are trained


@dataclass(frozen=True, slots=True)
class Effort:
    """How long and how fast a stage is trained.

    `rate` is that of v in `soft_rounding.py`, and of biases in units of the error that they are
    to make up for. Weights are decided from the part `free` of the steps on. The last
    `held_out` samples judge.
    """

    steps: int
    held_out: int
    batch: int = 32
    rate: float = 0.1
    free: float = 0.2
    seed: int = 0


@dataclass(frozen=True, slots=True)
class Learned:
    """What came of a stage.

    `integers` are by the label of the weight, `biases` by that of the initializer. `before` and
    `after` are error over signal of the stage's outputs on the samples that were held out, rounded
    to the nearest and as learned; where they are equal nothing was better than the nearest.
    `outputs` are what the rounded stage makes of every sample.
    """

    integers: dict[str, NDArray[np.int8]]
    biases: dict[str, NDArray[np.float32]]
    before: float
    after: float
    outputs: list[dict[str, NDArray[Any]]]


@dataclass(slots=True)
class StageGraph:
    """A stage with its roundings: the graph, what it reads and gives, and its samples.

    `inputs` and `targets` have one row for each sample, all with a batch axis of their own.
    """

    model: Model
    weights: list[RoundedWeight]
    points: list[RoundedPoint]
    outputs: tuple[str, ...]
    inputs: Sequence[Row] = field(default_factory=list)
    targets: Sequence[Row] = field(default_factory=list)


def stage_graph(whole: Simulated, model: Model, outputs: tuple[str, ...]) -> StageGraph:
    """The roundings of `whole` that lie in `model`, a part of its graph."""
    made = {name(v) for node in model.nodes() for v in node.outputs}
    return StageGraph(
        model,
        [w for w in whole.weights if w.label in made and w.params is not None],
        [p for p in whole.points if p.label in made],
        outputs,
    )


def learn(stage: StageGraph, effort: Effort, progress: Callable[[int, int], None]) -> Learned:
    """Round the weights of `stage` so that its outputs come near the targets.

    Biases of the layers are trained along. Equal stages and efforts give equal results on one
    machine with as many threads.

    Raises:
        UnsupportedModel: an op that has no gradient here; all of them.

    Source:
        Nagel et al. 2020, "AdaRound", arXiv:2004.10568, section 3; Li et al. 2021, "BRECQ",
        arXiv:2102.05426, section 3.2 (stages of several layers).
    """
    work = _Work(stage, effort)
    fitted = fit(
        work.module,
        Task(work.batches, work.objective, work.judge),
        Schedule(effort.steps, effort.rate, max_norm=math.inf, warmup=0.05, shape="constant"),
        seed=effort.seed,
        progress=progress,
    )
    return Learned(work.integers(), work.biases(), fitted.before, fitted.best, work.outputs())


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


class _Work:
    """The module of a stage, its batches and its judge."""

    def __init__(self, stage: StageGraph, effort: Effort) -> None:
        self._stage, self._effort = stage, effort
        graph, chosen = stage.model.graph.graph, []
        for weight in stage.weights:
            array = const(graph.initializers[weight.master])
            assert array is not None
            chosen.append(name(add_const(graph, _v(weight), start(array, weight))))
        self._biases = _biases(stage)
        for label in self._biases:
            array = const(graph.initializers[label])
            assert array is not None
            chosen.append(name(add_const(graph, _move(label), np.zeros_like(array))))
        self.module = GraphModule(stage.model, trainable=chosen.__contains__)
        self._rows = Rows(_Stored(stage))
        count = len(self._rows)
        self._seen = torch.arange(count - effort.held_out)
        self._held = torch.arange(count - effort.held_out, count)
        self._axes, self._out_axes = self._find_axes()
        self._roundings = {
            w.label: SoftRounding(
                w, self.module.weights[w.master].numpy(), self.module.trained[_v(w)], self.module
            )
            for w in stage.weights
        }
        self.module.taps.update(self._roundings)
        for point in stage.points:
            base = torch.tensor(float(point.step))
            low, high = point.low - point.zero, point.high - point.zero
            self.module.taps[point.label] = LearnedStep(base, low, high)
        self._order = Shuffled(len(self._seen), min(effort.batch, len(self._seen)), effort.seed)
        errors = {k: max(error, _TINY) for k, (error, _) in self._errors(self._seen).items()}
        self._tap_biases(errors)
        self.objective = Reconstruction(errors)

    def _find_axes(self) -> tuple[dict[str, int] | None, dict[str, int]]:
        """Along which axes samples are joined; None where they are computed one at a time."""
        first = next((e for e in self._rows.picked(self._seen[:_JUDGED]) if len(e) > 1), None)
        if first is None:
            return None, {}
        two = Alike(first.numbers[:2], {k: v[:2] for k, v in _inputs(first).items()})
        axes = batch_axes((self.module,), two)
        return axes, {} if axes is None else output_axes(self.module, two, axes)

    def _tap_biases(self, errors: Mapping[str, float]) -> None:
        unit = math.sqrt(max(errors.values()))
        for label in self._biases:
            moved = self.module.trained[_move(label)]
            self.module.taps[label] = _Moved(moved, unit)

    def _parts(self, numbers: Tensor) -> list[Part]:
        found = []
        for alike in self._rows.picked(numbers):
            for part in [alike] if self._axes is not None else alike.single():
                share = len(part) / len(numbers)
                found.append(Part(self._joined(part, ""), self._joined(part, _TARGET), share))
        return found

    def _joined(self, part: Alike, prefix: str) -> dict[str, Tensor]:
        """Inputs or targets of all samples of a part."""
        columns = _inputs(part) if not prefix else _targets(part)
        axes = self._out_axes if prefix else self._axes
        if axes is None or self._axes is None:
            return {k: v[0] for k, v in columns.items()}
        return {k: join(v, axes[k]) for k, v in columns.items()}

    def batches(self, step: int, chance: torch.Generator) -> list[Part]:
        if step % max(1, self._effort.steps // _DECISIONS) == 0:
            done = step / self._effort.steps
            part = (done - self._effort.free) / (_DECIDED_AT - self._effort.free)
            for rounding in self._roundings.values():
                rounding.harden(1 - (1 - min(max(part, 0.0), 1.0)) ** 2)
        return self._parts(self._order.batch(step))

    @torch.no_grad()
    def _errors(self, numbers: Tensor) -> dict[str, tuple[float, float]]:
        """The mean square of each output's error, and of the output."""
        found = dict.fromkeys(self._stage.outputs, (0.0, 0.0))
        for first in range(0, len(numbers), _JUDGED):
            some = numbers[first : first + _JUDGED]
            for part in self._parts(some):
                got = self.module(part.feeds, list(self._stage.outputs))
                share = part.share * len(some) / len(numbers)
                for label, want in part.targets.items():
                    error, power = found[label]
                    error += share * float((got[label] - want).double().square().mean())
                    found[label] = error, power + share * float(want.double().square().mean())
        return found

    def judge(self, module: GraphModule) -> float:
        """Error over signal, the mean over all outputs, on samples that were held out."""
        ratios = [error / max(power, _TINY) for error, power in self._errors(self._held).values()]
        return sum(ratios) / len(ratios)

    @torch.no_grad()
    def integers(self) -> dict[str, NDArray[np.int8]]:
        return {
            label: rounding.integers().numpy().astype(np.int8)
            for label, rounding in self._roundings.items()
        }

    @torch.no_grad()
    def biases(self) -> dict[str, NDArray[np.float32]]:
        held = self.module.weights
        return {label: self.module.taps[label](held[label]).numpy() for label in self._biases}

    @torch.no_grad()
    def outputs(self) -> list[dict[str, NDArray[Any]]]:
        """What the stage makes of every sample, as it is now."""
        found: dict[int, dict[str, NDArray[Any]]] = {}
        numbers = torch.arange(len(self._rows))
        for first in range(0, len(numbers), _JUDGED):
            for alike in self._rows.picked(numbers[first : first + _JUDGED]):
                for part in [alike] if self._axes is not None else alike.single():
                    got = self.module(self._joined(part, ""), list(self._stage.outputs))
                    for i, number in enumerate(part.numbers.tolist()):
                        found[number] = {k: self._row(k, v, i, len(part)) for k, v in got.items()}
        return [found[number] for number in numbers.tolist()]

    def _row(self, label: str, joined: Tensor, i: int, count: int) -> NDArray[Any]:
        """Sample `i` of the `count` that were joined."""
        if self._axes is None:
            return np.array(joined.numpy())
        axis = self._out_axes[label]
        each = joined.shape[axis] // count
        return np.array(joined.narrow(axis, i * each, each).numpy())


@dataclass(frozen=True, slots=True)
class _Moved:
    """A tap that adds `amount` times `unit`."""

    amount: Tensor
    unit: float

    def __call__(self, b: Tensor) -> Tensor:
        return b + self.unit * self.amount


def _v(weight: RoundedWeight) -> str:
    return f"{weight.label}@up"


def _move(label: str) -> str:
    return f"{label}@move"


def _biases(stage: StageGraph) -> list[str]:
    """The biases of the layers whose weights are rounded, by the names of their constants."""
    readers = {reader for weight in stage.weights for reader in weight.readers}
    found: dict[str, None] = {}
    for node in stage.model.nodes():
        place = bias_place(node) if node.name in readers else None
        value = None if place is None else input_at(*place)
        if value is not None and value.is_initializer():
            found[name(value)] = None
    return list(found)


def _inputs(part: Alike) -> dict[str, Tensor]:
    return {k: v for k, v in part.columns.items() if not k.startswith(_TARGET)}


def _targets(part: Alike) -> dict[str, Tensor]:
    return {k.removeprefix(_TARGET): v for k, v in part.columns.items() if k.startswith(_TARGET)}
