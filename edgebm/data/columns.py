"""Arrays whose first axis counts samples, read a few rows at a time.

A column never holds more than one block of rows, whatever it is read from, so the peak
memory of a run does not depend on how many samples a file has.
"""

from __future__ import annotations

import math
import os
import zipfile
import zlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from edgebm.errors import DataError

Array = NDArray[Any]
BLOCK_BYTES = 1 << 20


class Column(Protocol):
    """`shape[0]` samples of `dtype`; `rows` gives `shape[1:]` arrays."""

    @property
    def dtype(self) -> np.dtype[Any]: ...

    @property
    def shape(self) -> tuple[int, ...]: ...

    def rows(self, wanted: Sequence[int]) -> Iterator[Array]:
        """The rows at ascending positions, one at a time, not to be written to."""
        ...


@dataclass(frozen=True, slots=True)
class ArrayColumn:
    """An array that is in memory already."""

    array: Array

    @property
    def dtype(self) -> np.dtype[Any]:
        return self.array.dtype

    @property
    def shape(self) -> tuple[int, ...]:
        return self.array.shape

    def rows(self, wanted: Sequence[int]) -> Iterator[Array]:
        return (self.array[i] for i in wanted)


@dataclass(frozen=True, slots=True)
class FileColumn:
    """Values that lie one after another in a file, from byte `offset`.

    Rows are read, not mapped: pages of a mapped file would count as memory of the process.
    """

    path: Path
    offset: int
    dtype: np.dtype[Any]
    shape: tuple[int, ...]

    def rows(self, wanted: Sequence[int]) -> Iterator[Array]:
        with self.path.open("rb") as file:
            yield from _blocks(file, self, self.offset, wanted)


@dataclass(frozen=True, slots=True)
class ZipColumn:
    """A compressed member of an npz archive, unpacked as it is read."""

    path: Path
    member: str
    offset: int
    dtype: np.dtype[Any]
    shape: tuple[int, ...]

    def rows(self, wanted: Sequence[int]) -> Iterator[Array]:
        try:
            with zipfile.ZipFile(self.path) as archive, archive.open(self.member) as stream:
                yield from _blocks(stream, self, self.offset, wanted)
        except (zipfile.BadZipFile, zlib.error, EOFError) as cause:
            raise DataError(
                f"{self.path}: '{self.member}' is damaged: {cause}", hint="copy the file again"
            ) from cause


@dataclass(frozen=True, slots=True)
class WholeColumn:
    """Another column as a single row."""

    column: Column

    @property
    def dtype(self) -> np.dtype[Any]:
        return self.column.dtype

    @property
    def shape(self) -> tuple[int, ...]:
        return (1, *self.column.shape)

    def rows(self, wanted: Sequence[int]) -> Iterator[Array]:
        for _ in wanted:
            yield np.stack(list(self.column.rows(range(self.column.shape[0]))))


def _go(stream: Any, position: int) -> None:
    """Seek; a compressed member unpacks what it skips, so it goes there in small steps."""
    while isinstance(stream, zipfile.ZipExtFile) and position - stream.tell() > BLOCK_BYTES:
        stream.seek(BLOCK_BYTES, os.SEEK_CUR)
    stream.seek(position)


def _blocks(
    stream: Any, column: FileColumn | ZipColumn, offset: int, wanted: Sequence[int]
) -> Iterator[Array]:
    """Read runs of neighbouring rows in blocks of about BLOCK_BYTES."""
    row_shape = column.shape[1:]
    row_bytes = math.prod(row_shape) * column.dtype.itemsize
    most = max(1, BLOCK_BYTES // max(1, row_bytes))
    position = 0
    while position < len(wanted):
        first = wanted[position]
        count = 1
        while (
            count < most
            and position + count < len(wanted)
            and wanted[position + count] == first + count
        ):
            count += 1
        _go(stream, offset + first * row_bytes)
        raw = stream.read(count * row_bytes)
        if len(raw) != count * row_bytes:
            raise DataError(
                f"{column.path} ends inside row {first + len(raw) // max(1, row_bytes)} of "
                f"{column.shape[0]}",
                hint="the file was cut short or changed while it was read; copy it again",
            )
        yield from np.frombuffer(raw, column.dtype).reshape(count, *row_shape)
        position += count
