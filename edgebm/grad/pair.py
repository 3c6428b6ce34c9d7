"""A student beside its teacher, and what both make of a few samples."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from numpy.typing import NDArray
from torch import Tensor

from edgebm.grad.module import GraphModule
from edgebm.ir.model import Model


@dataclass(frozen=True, slots=True)
class Pair:
    """A student and its teacher, as graphs and as modules."""

    student: Model
    teacher: Model
    pupil: GraphModule
    master: GraphModule


@dataclass(frozen=True, slots=True)
class Probe:
    """A few samples of equal shapes: their feeds at once, how many they are, and their labels."""

    feeds: Mapping[str, Tensor]
    count: int
    labels: NDArray[Any] | None = None


@dataclass(frozen=True, slots=True)
class Seen:
    """What both make of the largest probe, and the powers of the teacher's values over all."""

    got: Mapping[str, Tensor]
    want: Mapping[str, Tensor]
    powers: Mapping[str, float]
    labels: NDArray[Any] | None


@torch.no_grad()
def seen_by(pair: Pair, probes: Sequence[Probe], mine: list[str], theirs: list[str]) -> Seen:
    """The values `mine` of the student and `theirs` of the teacher, as float32."""
    largest = max(probes, key=lambda probe: probe.count)
    got = {k: v.float() for k, v in pair.pupil(largest.feeds, mine).items()}
    want: dict[str, Tensor] = {}
    powers = dict.fromkeys(theirs, 0.0)
    whole = sum(probe.count for probe in probes)
    for probe in probes:
        values = {k: v.float() for k, v in pair.master(probe.feeds, theirs).items()}
        want = values if probe is largest else want
        for label, value in values.items():
            powers[label] += probe.count / whole * power_of(value)
    return Seen(got, want, powers, largest.labels)


def power_of(values: Tensor) -> float:
    """The mean square of values."""
    return float(values.double().square().mean())
