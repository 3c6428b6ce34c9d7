"""How a student is taught, in the words of a recipe."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

from edgebm.grad.augment import Way
from edgebm.grad.schedule import Schedule

Outputs = Literal["auto", "logits", "embedding", "values"]


@dataclass(frozen=True, slots=True)
class Weights:
    """How much each part of the loss counts; 0 leaves it out.

    `outputs` are those of the model; `features` values between its blocks; `attention` and
    `relations` the maps and the values of its attentions; `labels` the task itself.
    """

    outputs: float = 1.0
    features: float = 1.0
    attention: float = 0.0
    relations: float = 0.0
    labels: float = 0.0


@dataclass(frozen=True, slots=True)
class Teaching:
    """How a student is taught.

    `epochs` bounds the steps of `schedule` by how often each sample comes, where it is given.
    `outputs` says what the model's outputs are, where "auto" does not see it. `features` names
    values that are compared: a name that both graphs have, or `teacher's=student's`; None
    chooses a few.
    """

    schedule: Schedule
    batch: int = 64
    epochs: float | None = None
    temperature: float = 2.0
    weights: Weights = field(default_factory=Weights)
    outputs: Outputs = "auto"
    features: tuple[str, ...] | None = None
    augment: tuple[Way, ...] = ()
    trim_padding: bool = True
    train_tables: bool = False
    seed: int = 0
