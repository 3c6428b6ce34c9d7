"""Samples by number, as tensors: held in memory where they fit, else read when they are needed."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from edgebm.grad.tensors import to_tensor

Feeds = Mapping[str, NDArray[Any]]
LIMIT_BYTES = 2**31


class Samples(Protocol):
    """Sized, and read again from any place."""

    def __len__(self) -> int: ...

    def feeds(self, start: int = 0, stop: int | None = None) -> Iterable[Feeds]: ...


@dataclass(frozen=True, slots=True)
class Alike:
    """Samples of equal shapes: their numbers [K], and each input as [K, its shape]."""

    numbers: Tensor
    columns: dict[str, Tensor]

    def __len__(self) -> int:
        return len(self.numbers)

    def joined(self, axes: Mapping[str, int]) -> dict[str, Tensor]:
        """Feeds of all samples at once, joined along each input's batch axis."""
        return {k: join(held, axes[k]) for k, held in self.columns.items()}

    def single(self) -> Iterator[Alike]:
        """Each sample by itself."""
        for i in range(len(self)):
            yield Alike(
                self.numbers[i : i + 1], {k: v[i : i + 1] for k, v in self.columns.items()}
            )


def join(stacked: Tensor, axis: int) -> Tensor:
    """[K, ..., B, ...] as [..., K * B, ...], where B is at `axis` of what is stacked."""
    return stacked.movedim(0, axis).flatten(axis, axis + 1)


class Rows:
    """All samples; `picked` gives some of them.

    `groups` are those of equal shapes; empty where the samples are not held in memory.
    """

    def __init__(self, samples: Samples, limit_bytes: int = LIMIT_BYTES) -> None:
        """Read every sample once; as many as fit in `limit_bytes` are held."""
        self._samples = samples
        self.groups: list[Alike] = []
        self.sizes = torch.zeros(len(samples), dtype=torch.int64)  # numbers in each sample
        self._signatures: set[object] = set()
        held = self._read(limit_bytes)
        if held is not None:
            self.groups = [_stacked(*each) for each in held.values()]
        # Where each sample is: the number of its group, and its place in it.
        self._place = torch.zeros(len(samples), 2, dtype=torch.int64)
        for number, group in enumerate(self.groups):
            self._place[group.numbers, 0] = number
            self._place[group.numbers, 1] = torch.arange(len(group))

    def __len__(self) -> int:
        return len(self.sizes)

    @property
    def alike(self) -> bool:
        """Whether all samples have the same shapes."""
        return len(self._signatures) == 1

    def picked(self, numbers: Tensor) -> list[Alike]:
        """The samples with these numbers; those of equal shapes together."""
        if not self.groups:
            return self._streamed(numbers)
        found = []
        group_of, place = self._place[numbers].unbind(1)
        for group in sorted(set(group_of.tolist())):
            mine = group_of == group
            held = self.groups[group].columns
            where = place[mine]
            found.append(Alike(numbers[mine], {k: v[where] for k, v in held.items()}))
        return found

    def _read(self, limit_bytes: int) -> dict[object, tuple[list[int], list[Feeds]]] | None:
        """Samples by their shapes; None where they do not fit in memory."""
        found: dict[object, tuple[list[int], list[Feeds]]] = {}
        taken, fits = 0, True
        for number, feeds in enumerate(self._samples.feeds()):
            self.sizes[number] = sum(array.size for array in feeds.values())
            taken += sum(array.nbytes for array in feeds.values())
            signature = _signature(feeds)
            self._signatures.add(signature)
            if fits and taken > limit_bytes:
                found, fits = {}, False
            if fits:
                numbers, rows = found.setdefault(signature, ([], []))
                numbers.append(number)
                rows.append({k: np.array(array) for k, array in feeds.items()})
        return found if fits else None

    def _streamed(self, numbers: Tensor) -> list[Alike]:
        found: dict[object, tuple[list[int], list[Feeds]]] = {}
        for number in numbers.tolist():
            for feeds in self._samples.feeds(number, number + 1):
                mine, rows = found.setdefault(_signature(feeds), ([], []))
                mine.append(number)
                rows.append(feeds)
        return [_stacked(*each) for each in found.values()]


def _signature(feeds: Feeds) -> object:
    return tuple((k, array.dtype.str, array.shape) for k, array in sorted(feeds.items()))


def _stacked(numbers: Sequence[int], rows: Sequence[Feeds]) -> Alike:
    columns = {k: to_tensor(np.stack([row[k] for row in rows])) for k in rows[0]}
    return Alike(torch.tensor(numbers), columns)
