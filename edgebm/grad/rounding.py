"""The rounding of the weights of one stage, learned from what the stage shall give."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from edgebm.grad.batches import Shuffled
from edgebm.grad.fake_quantize import tap_points
from edgebm.grad.fit import Part, Schedule, Task, fit
from edgebm.grad.module import GraphModule
from edgebm.grad.simulated import RoundedWeight
from edgebm.grad.soft_rounding import Reconstruction, SoftRounding, start
from edgebm.grad.stage_graph import StageGraph, StageRows
from edgebm.ir.edit import add_const, const, name

_TINY = 1e-12
_DECISIONS = 40  # in how many turns weights are decided
_DECIDED_AT = 0.95  # of the steps: from then on biases alone are trained


@dataclass(frozen=True, slots=True)
class Effort:
    """How long and how fast a stage is trained.

    `rate` is that of v in `soft_rounding.py`, and of biases in units of the error that they are
    to make up for. Weights are decided from the part `free` of the steps on. The last `held_out`
    samples judge.
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

    `integers` are by the label of the weight, `biases` by the name of the layer. `before` and
    `after` are error over signal of the stage's outputs on the samples that were held out, rounded
    to the nearest and as learned; where they are equal nothing was better than the nearest.
    `outputs` are what the rounded stage makes of every sample.
    """

    integers: dict[str, NDArray[np.int8]]
    biases: dict[str, NDArray[np.float32]]
    before: float
    after: float
    outputs: list[dict[str, NDArray[Any]]]


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
    return work.learned(fitted.before, fitted.best)


class _Work:
    """The module of a stage, its batches and its judge."""

    def __init__(self, stage: StageGraph, effort: Effort) -> None:
        self._stage, self._effort, self._biases = stage, effort, stage.biases
        held = dict(stage.model.graph.graph.initializers)
        chosen = [self._add(_v(w), start(_array(held, w.label), w)) for w in stage.weights]
        moved = list(dict.fromkeys(self._biases.values()))
        chosen += [self._add(_move(b), np.zeros_like(_array(held, b))) for b in moved]
        self.module = GraphModule(stage.model, trainable=chosen.__contains__)
        self._rows = StageRows(stage, self.module)
        seen = len(self._rows) - effort.held_out
        self._held = torch.arange(seen, len(self._rows))
        self._order = Shuffled(seen, min(effort.batch, seen), effort.seed)
        trained = self.module.trained
        self._roundings = {
            w.label: SoftRounding(w, _array(held, w.label), trained[_v(w)], self.module)
            for w in stage.weights
        }
        self.module.taps.update(self._roundings)
        tap_points(self.module, stage.points)
        with torch.no_grad():
            found = self._rows.errors(self.module, torch.arange(seen))
        errors = {k: max(error, _TINY) for k, (error, _) in found.items()}
        unit = math.sqrt(max(errors.values()))
        self.module.taps.update({b: _Moved(trained[_move(b)], unit) for b in moved})
        self.objective = Reconstruction(errors)

    def _add(self, label: str, array: NDArray[np.float32]) -> str:
        return name(add_const(self._stage.model.graph.graph, label, array))

    def batches(self, step: int, chance: torch.Generator) -> list[Part]:
        if step % max(1, self._effort.steps // _DECISIONS) == 0:
            done = step / self._effort.steps
            part = (done - self._effort.free) / (_DECIDED_AT - self._effort.free)
            for rounding in self._roundings.values():
                rounding.harden(1 - (1 - min(max(part, 0.0), 1.0)) ** 2)
        return self._rows.parts(self._order.batch(step))

    def judge(self, module: GraphModule) -> float:
        """Error over signal, the mean over all outputs, on samples that were held out."""
        found = self._rows.errors(module, self._held).values()
        return sum(error / max(power, _TINY) for error, power in found) / len(found)

    @torch.no_grad()
    def learned(self, before: float, after: float) -> Learned:
        """What the module has come to."""
        module, integers = self.module, {}
        for label, rounding in self._roundings.items():
            integers[label] = rounding.integers().numpy().astype(np.int8)
        biases = {
            node: module.taps[label](module.weights[label]).numpy()
            for node, label in self._biases.items()
        }
        return Learned(integers, biases, before, after, self._rows.answers(module))


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


def _array(held: Mapping[str, Any], label: str) -> NDArray[np.float32]:
    array = const(held[label])
    assert array is not None
    return array
