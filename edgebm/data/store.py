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
from edgebm.data.steps import STATELESS, Steps, is_sequences, length, unrolled
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
    steps: Steps = STATELESS

    @property
    def sequences(self) -> bool:
        """Whether each sample is a sequence of steps."""
        return is_sequences(self.source.batches[0], self.inputs, self.steps)

    def lengths(self, positions: Sequence[int]) -> Iterator[int]:
        """Steps of each sample, told from the shapes alone; 1 where they are no sequences."""
        for batch, wanted, _ in self._runs(positions):
            yield from [self._length(batch)] * len(wanted)

    @property
    def has_labels(self) -> bool:
        return self.labels is not None or self.source.batches[0].labels is not None

    def read(self, positions: Sequence[int]) -> Iterator[tuple[int, Feeds]]:
        """(position, sample as the model takes it). Raises DataError for a misfit."""
        for batch, wanted, first in self._runs(positions):
            specs = [spec for spec in self.inputs if spec.name in batch.columns]
            columns = [batch.columns[spec.name].rows(wanted) for spec in specs]
            count = self._length(batch) if self.sequences else 0
            for row, arrays in zip(wanted, zip(*columns, strict=True), strict=True):
                yield first + row, self._converted(specs, arrays, first + row, count)

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

    def _length(self, batch: Batch) -> int:
        fed = [spec for spec in self.steps.fed(self.inputs) if spec.name in batch.columns]
        counts = [length(batch.columns[spec.name].shape, spec, self.steps) for spec in fed]
        return next((count for count in counts if count is not None), 1)

    def _converted(
        self,
        specs: Sequence[TensorSpec],
        arrays: Sequence[NDArray[Any]],
        position: int,
        count: int,
    ) -> Feeds:
        """`count` is the number of steps of a sequence, 0 where there are none."""
        try:
            return {
                spec.name: convert(
                    unrolled(array, spec, self.steps, count)
                    if count and spec.name not in self.steps.states
                    else array,
                    spec,
                )
                for spec, array in zip(specs, arrays, strict=True)
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
