"""What a family of ops is: a closed table from the name of an op to a function of tensors."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import onnx_ir as ir
from torch import Tensor

Compute = Callable[..., Tensor | tuple[Tensor, ...]]
"""From the inputs of a node (None where one is left out) to its output, or to all of them."""


@dataclass(frozen=True, slots=True)
class ByMode:
    """An op that does one thing in eval mode and another in training."""

    answers: Compute
    trains: Compute


Bound = Compute | ByMode

Rule = Callable[[ir.Node], Bound]
"""Reads the attributes of a node once. Raises `NotCovered` for a form that is not there."""

Family = Mapping[str, Rule]


class NotCovered(Exception):
    """The op is in a table, but not in this form; the text says what is in the way."""


def plain(function: Compute) -> Rule:
    """The rule of an op without attributes."""
    return lambda _: function


def whole(values: Tensor) -> list[int]:
    """The numbers of a small integer tensor of rank 0 or 1: axes, sizes, a shape."""
    return [int(value) for value in values.reshape(-1).tolist()]
