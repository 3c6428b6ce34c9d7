"""Sequences of different lengths side by side, and batches of them with a little noise."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from numpy.typing import NDArray
from torch import Tensor

from edgebm.grad.tensors import to_tensor

_FRAMES = 3200  # steps of all sequences of a batch together
_MOST, _LEAST = 256, 4  # sequences of a batch


@dataclass(frozen=True, slots=True)
class Sequences:
    """What a recurrent cell reads: N sequences, up to T steps of I numbers, H units.

    `x` is [T, N, I], zero behind the end of a sequence; `lengths` [N]; `initial` [D, N, H].
    """

    x: Tensor
    lengths: Tensor
    initial: Tensor

    @classmethod
    def joined(cls, rows: Sequence[NDArray[Any]], initial: Sequence[NDArray[Any]]) -> Sequences:
        """From one array [T, I] and one state [D, H] a sequence."""
        return cls(
            torch.nn.utils.rnn.pad_sequence([to_tensor(row) for row in rows]),
            torch.tensor([len(row) for row in rows]),
            torch.stack([to_tensor(state) for state in initial], 1),
        )

    def __len__(self) -> int:
        return self.x.shape[1]

    @property
    def inside(self) -> Tensor:
        """Which steps are within their sequence, [T, N]."""
        return torch.arange(len(self.x))[:, None] < self.lengths

    def picked(self, which: Tensor) -> Sequences:
        """The sequences with these numbers, in this order."""
        lengths = self.lengths[which]
        return Sequences(self.x[: int(lengths.max()), which], lengths, self.initial[:, which])

    def deviation(self) -> Tensor:
        """The standard deviation of each of the I inputs over all steps, [I]."""
        values = self.x[self.inside]
        return values.std(0, correction=0)

    def batch_size(self) -> int:
        """How many make a batch: about as many steps in each, however long the sequences are."""
        mean = max(1, int(self.lengths.sum()) // len(self))
        return min(len(self), max(_LEAST, min(_MOST, _FRAMES // mean)))
