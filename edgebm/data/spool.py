"""A temporary file that one-shot iterables are kept in, so that they can be read again."""

from __future__ import annotations

import math
import os
import tempfile
import weakref
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgebm.data.batch import Batch, Feeds
from edgebm.data.columns import Column
from edgebm.errors import DataError


class Spool:
    """Arrays in a file without a name: it is gone when closed, collected or killed."""

    def __init__(self) -> None:
        self._file = tempfile.TemporaryFile(prefix="edgebm-")  # noqa: SIM115
        self._size = 0
        self._close = weakref.finalize(self, self._file.close)

    def add(self, array: NDArray[Any]) -> SpoolColumn:
        """Keep a copy of `array`; axis 0 counts samples.

        Raises:
            DataError: the disk is full.
        """
        data = np.ascontiguousarray(array)
        column = SpoolColumn(self, self._size, data.dtype, data.shape)
        try:
            self._file.write(data.tobytes())
        except OSError as cause:
            raise DataError(
                f"keeping the samples in {tempfile.gettempdir()} failed after {self._size} bytes: "
                f"{cause.strerror}",
                hint="take fewer samples, or set TMPDIR to a larger disk",
            ) from cause
        self._size += data.nbytes
        return column

    def read(self, offset: int, count: int) -> bytes:
        if self._file.closed:
            raise DataError("these samples were closed", hint="open them again")
        self._file.flush()
        return os.pread(self._file.fileno(), count, offset)

    def keep(self, batch: Batch) -> Batch:
        """The same batch with its arrays in the file."""
        labels = None if batch.labels is None else self.add(_whole(batch.labels))
        columns = {name: self.add(_whole(column)) for name, column in batch.columns.items()}
        return replace(batch, columns=columns, labels=labels)

    def close(self) -> None:
        self._close()


@dataclass(frozen=True, slots=True)
class SpoolColumn:
    spool: Spool
    offset: int
    dtype: np.dtype[Any]
    shape: tuple[int, ...]

    def rows(self, wanted: Sequence[int]) -> Iterator[NDArray[Any]]:
        size = math.prod(self.shape[1:]) * self.dtype.itemsize
        for row in wanted:
            raw = self.spool.read(self.offset + row * size, size)
            yield np.frombuffer(raw, self.dtype).reshape(self.shape[1:])


class KeptOutputs:
    """Outputs of a reference model, kept on disk to be compared with again and again.

    Iterating gives, in the order of `outputs`, dicts of the same arrays (read-only).
    """

    def __init__(self, outputs: Iterable[Feeds]) -> None:
        self._spool = Spool()
        self._kept = [
            {name: self._spool.add(np.asarray(value)[None]) for name, value in feeds.items()}
            for feeds in outputs
        ]

    def __len__(self) -> int:
        return len(self._kept)

    def __iter__(self) -> Iterator[Feeds]:
        for kept in self._kept:
            yield {name: next(column.rows([0])) for name, column in kept.items()}

    def close(self) -> None:
        self._spool.close()


def _whole(column: Column) -> NDArray[Any]:
    return np.stack(list(column.rows(range(column.shape[0]))))
