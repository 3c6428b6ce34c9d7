"""What a training is given, and what comes of it."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal

import torch
from torch import Tensor

from edgebm.grad.checkpoint import Checkpoint
from edgebm.grad.losses import Objective, Tensors
from edgebm.grad.module import GraphModule
from edgebm.grad.precision import F32, Precision
from edgebm.grad.world import World

Ended = Literal["complete", "no better", "out of time", "diverged"]


@dataclass(frozen=True, slots=True)
class Part:
    """Feeds that are computed at once, what is wanted of them, and their share of all samples.

    The shares of one step's parts add up to 1, over all processes.
    """

    feeds: Tensors
    targets: Tensors
    share: float = 1.0


Batches = Callable[[int, torch.Generator], Sequence[Part]]
"""The parts of the batch of a step, numbered from 0. All chance comes from the generator, which
depends on the seed and the step alone."""


@dataclass(frozen=True, slots=True)
class Task:
    """What a module is led to: `objective` shall be small on the batches.

    `judge` says how good the module is, low being good; it is called without gradients and in
    evaluation mode, and is worth most on samples that `batches` never gives. Weights named in
    `masks` are zero where their mask is, and stay so. With `moving` a BatchNormalization takes the
    moments of each batch; without it keeps its running ones.
    """

    batches: Batches
    objective: Objective
    judge: Callable[[GraphModule], float]
    masks: Mapping[str, Tensor] = field(default_factory=dict)
    moving: bool = True


@dataclass(frozen=True, slots=True)
class Place:
    """Where and in what it is computed, and where its state is kept meanwhile."""

    world: World = field(default_factory=World)
    precision: Precision = F32
    checkpoint: Checkpoint | None = None


@dataclass(frozen=True, slots=True)
class Fitted:
    """What came of it: `steps` done of those `planned`, and why it ended.

    `before` and `best` are the judge's figures; `resumed_at` is the step that this run began
    with, 0 where it was not resumed. `seconds` are those of all runs together. `factor` is that of
    the rate that was chosen.
    """

    steps: int
    before: float
    best: float
    ended: Ended
    planned: int
    seconds: float
    resumed_at: int = 0
    factor: float = 1.0
