"""An opened source as one row of samples, and how to walk it."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from numpy.typing import NDArray

from edgebm.data.batch import Batch, Feeds
from edgebm.data.columns import Column
from edgebm.data.fit import convert
from edgebm.data.sources import Source
from edgebm.errors import DataError
from edgebm.spec import TensorSpec


@dataclass(frozen=True, slots=True)
class Store:
    """What a set of samples and its subsets share.

    `starts` are the positions of the first sample of each batch; `labels`, if given, are those
    of the whole source and win over labels in the batches. Positions are always ascending.
    """

    source: Source
    inputs: tuple[TensorSpec, ...]
    starts: tuple[int, ...]
    labels: Column | None

    @property
    def has_labels(self) -> bool:
        return self.labels is not None or self.source.batches[0].labels is not None

    def read(self, positions: Sequence[int]) -> Iterator[tuple[int, Feeds]]:
        """(position, sample as the model takes it). Raises DataError for a misfit."""
        names = [spec.name for spec in self.inputs]
        for batch, wanted, first in self._runs(positions):
            columns = [batch.columns[name].rows(wanted) for name in names]
            for row, arrays in zip(wanted, zip(*columns, strict=True), strict=True):
                yield first + row, self._converted(arrays, first + row)

    def label_rows(self, positions: Sequence[int]) -> Iterator[NDArray[Any]]:
        if self.labels is not None:
            yield from self.labels.rows(positions)
        elif self.has_labels:
            for batch, wanted, _ in self._runs(positions):
                if batch.labels is not None:
                    yield from batch.labels.rows(wanted)

    def classes(self, positions: Sequence[int]) -> set[int]:
        """The different labels, when they are single whole numbers; else nothing."""
        first = next(self.label_rows(positions[:1]), None)
        if first is None or first.ndim or first.dtype.kind not in "iu":
            return set()
        return {int(label) for label in self.label_rows(positions)}

    def _converted(self, arrays: Sequence[NDArray[Any]], position: int) -> Feeds:
        try:
            return {
                spec.name: convert(array, spec)
                for spec, array in zip(self.inputs, arrays, strict=True)
            }
        except DataError as fault:
            where = f"{self.source.name}: sample {position}"
            raise DataError(f"{where}: {fault}", hint=fault.hint) from None

    def _runs(self, positions: Sequence[int]) -> Iterator[tuple[Batch, Sequence[int], int]]:
        """(batch, rows in it, position of its first row) of every batch that is touched."""
        done = 0
        while done < len(positions):
            which = bisect_right(self.starts, positions[done]) - 1
            batch, first = self.source.batches[which], self.starts[which]
            upto = bisect_right(positions, first + len(batch) - 1, lo=done)
            yield batch, [position - first for position in positions[done:upto]], first
            done = upto
