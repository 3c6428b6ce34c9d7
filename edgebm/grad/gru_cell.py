"""One GRU cell cut out of its graph: its weights, and the states it makes of sequences."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import onnx_ir as ir
import torch
from numpy.typing import NDArray
from torch import Tensor

from edgebm.grad.module import GraphModule
from edgebm.grad.sequences import Sequences
from edgebm.ir.model import Model
from edgebm.ir.opset import INTERNAL_OPSET

F32 = NDArray[np.float32]
_PART = 64  # sequences whose states are held at once


@dataclass(frozen=True, slots=True)
class GruCell:
    """W [D, 3 H, I], R [D, 3 H, H] and B [D, 6 H], gates in the order z, r, h; a direction.

    `resets_after` says whether the reset gate acts on the product with R or on what it reads.
    """

    w: F32
    r: F32
    b: F32
    direction: str
    resets_after: bool

    @property
    def hidden(self) -> int:
        return int(self.r.shape[2])

    @property
    def macs(self) -> int:
        """Multiplications of one step of one sequence."""
        return int(self.w.size + self.r.size)

    def runs_backwards(self, d: int) -> bool:
        """Whether direction number `d` begins at the end of a sequence."""
        return self.direction == "reverse" or d == 1

    def sister(self) -> GruCell:
        """The same weights with the reset before the product.

        Both biases are in one: neither sits behind a gate there.
        """
        first, second = np.split(self.b, 2, axis=1)
        b = np.concatenate([first + second, np.zeros_like(first)], 1)
        return GruCell(self.w, self.r, b, self.direction, resets_after=False)

    def module(self) -> GraphModule:
        """The cell alone: x [T, N, I], n [N] and h [D, N, H] to y [T, D, N, H]."""
        x, lengths, initial = (ir.val(name) for name in ("x", "n", "h"))
        held = [
            ir.val(name, const_value=ir.tensor(array, name=name))
            for name, array in zip("wrb", (self.w, self.r, self.b), strict=True)
        ]
        attributes: dict[str, int | str] = {
            "hidden_size": self.hidden,
            "direction": self.direction,
            "linear_before_reset": int(self.resets_after),
        }
        node = ir.node("GRU", [x, *held, lengths, initial], attributes)
        node.outputs[0].name = "y"
        graph = ir.Graph(
            [x, lengths, initial],
            [node.outputs[0]],
            nodes=[node],
            initializers=held,
            opset_imports={"": INTERNAL_OPSET},
            name="cell",
        )
        return GraphModule(Model(ir.Model(graph, ir_version=10)))


def states_of(module: GraphModule, read: Sequences) -> Tensor:
    """States [T, D, N, H] of a cell's module, zero behind the end of a sequence."""
    states: Tensor = module({"x": read.x, "n": read.lengths, "h": read.initial})["y"]
    return states


@dataclass(frozen=True, slots=True)
class Lesson:
    """What a cell reads: the original (`teacher`), and its sister (`student`) in its place.

    They differ where cells in front of it were turned before, and are alike in length and order.
    """

    teacher: Sequences
    student: Sequences

    def split(self, every: int) -> tuple[Lesson, Lesson]:
        """What is learned from, and what is held out: the last of each `every` sequences.

        At least one is held out where there are two.
        """
        numbers = torch.arange(len(self.teacher))
        held = numbers % every == min(every, len(numbers)) - 1
        return self.picked(numbers[~held]), self.picked(numbers[held])

    def picked(self, which: Tensor) -> Lesson:
        return Lesson(self.teacher.picked(which), self.student.picked(which))

    def parts(self) -> Iterator[Lesson]:
        """All of it, a few sequences at a time."""
        for first in range(0, len(self.teacher), _PART):
            yield self.picked(torch.arange(first, min(first + _PART, len(self.teacher))))
