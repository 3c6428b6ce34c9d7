"""Samples as batches of tensors."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor


def stacked(samples: Iterable[Mapping[str, NDArray[Any]]]) -> dict[str, Tensor]:
    """Samples of equal shapes, joined along axis 0: each input as one tensor [N, ...]."""
    columns: dict[str, list[NDArray[Any]]] = {}
    for feeds in samples:
        for label, array in feeds.items():
            columns.setdefault(label, []).append(array)
    return {label: torch.from_numpy(np.concatenate(parts)) for label, parts in columns.items()}


_SORTED = 50  # batches are made of as many samples, sorted by length


class Shuffled:
    """Numbers of samples in batches: all of them once, in chance order, then anew.

    The batch of a step depends on the seed and the step alone. With `lengths` the samples of a
    batch are of like length, and those left over at the end of a round are left out of it.
    """

    def __init__(
        self, count: int, size: int, seed: int = 0, lengths: Tensor | None = None
    ) -> None:
        self._count, self._size, self._seed = count, size, seed
        self._lengths = lengths
        self._known: tuple[int, list[Tensor]] = (-1, [])

    def batch(self, step: int) -> Tensor:
        """The numbers of batch `step`, [size]; a batch may end one round and begin the next."""
        if self._lengths is not None:
            number, place = divmod(step, self._count // self._size)
            if self._known[0] != number:
                self._known = number, self._sorted_round(number, self._lengths)
            return self._known[1][place]
        first = step * self._size
        rounds = range(first // self._count, (first + self._size - 1) // self._count + 1)
        order = torch.cat([self._round(number) for number in rounds])
        start = first - rounds.start * self._count
        return order[start : start + self._size]

    def _sorted_round(self, number: int, lengths: Tensor) -> list[Tensor]:
        """Batches in chance order; a sample has its neighbours out of a part of all samples."""
        generator = seeded(self._seed, number, 2)
        order = self._round(number)[: self._count // self._size * self._size]
        batches: list[Tensor] = []
        for first in range(0, len(order), _SORTED * self._size):
            part = order[first : first + _SORTED * self._size]
            ascending = part[lengths[part].argsort(stable=True)]
            batches += ascending.reshape(-1, self._size).unbind(0)
        return [batches[i] for i in torch.randperm(len(batches), generator=generator).tolist()]

    def _round(self, number: int) -> Tensor:
        return torch.randperm(self._count, generator=seeded(self._seed, number, 1))


def seeded(*numbers: int) -> torch.Generator:
    """A generator whose chance depends on all of `numbers`."""
    mixed = np.random.SeedSequence(numbers).generate_state(1, np.uint64)
    return torch.Generator().manual_seed(int(mixed[0] >> np.uint64(1)))
