"""npy and npz files: what they hold, told from their headers; what is no such file is refused."""

from __future__ import annotations

import math
import os
import zipfile
import zlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

from edgebm.data.columns import ArrayColumn, Column, FileColumn, ZipColumn
from edgebm.errors import DataError

_LFS = b"version https://git-lfs.github.com/spec/"
_LOCAL_HEADER = 30


@dataclass(frozen=True, slots=True)
class Header:
    """What stands before the values of an npy file."""

    dtype: np.dtype[Any]
    shape: tuple[int, ...]
    fortran: bool
    length: int


def open_npy(path: Path) -> Column:
    """The array of an `.npy` file.

    Raises:
        DataError: missing, not an npy file, cut short, or holding Python objects.
    """
    refuse_stand_in(path)
    with path.open("rb") as file:
        header = _header(file, str(path))
        size = os.fstat(file.fileno()).st_size
    needed = header.length + math.prod(header.shape) * header.dtype.itemsize
    if size < needed:
        raise DataError(
            f"{path} is cut short: {size} bytes, its header promises {needed}",
            hint="copy or write the file again",
        )
    if header.fortran:
        return ArrayColumn(np.load(path, allow_pickle=False))
    return FileColumn(path, header.length, header.dtype, header.shape)


def open_npz(path: Path) -> dict[str, Column]:
    """The arrays of an `.npz` file by name; nothing but their headers is read.

    An array in Fortran order is the exception: its rows are scattered, so it is read whole.

    Raises:
        DataError: missing, not a zip, cut short, an encrypted or foreign member, or Python
            objects inside.
    """
    refuse_stand_in(path)
    try:
        with zipfile.ZipFile(path) as archive, path.open("rb") as raw:
            return {
                info.filename.removesuffix(".npy"): _member(path, archive, raw, info)
                for info in archive.infolist()
            }
    except (zipfile.BadZipFile, zlib.error, EOFError, NotImplementedError, RuntimeError) as cause:
        raise DataError(
            f"{path} is not a readable npz file: {cause}",
            hint="write it again with np.savez(path, **{input name: array})",
        ) from cause


def _member(path: Path, archive: zipfile.ZipFile, raw: BinaryIO, info: zipfile.ZipInfo) -> Column:
    where = f"{path}: '{info.filename}'"
    if not info.filename.endswith(".npy"):
        raise DataError(f"{where} is not an array", hint="an npz file holds .npy members only")
    with archive.open(info) as stream:
        header = _header(stream, where)
    needed = header.length + math.prod(header.shape) * header.dtype.itemsize
    if info.file_size < needed:
        raise DataError(
            f"{where} is cut short: {info.file_size} bytes, its header promises {needed}",
            hint="write the file again",
        )
    if header.fortran:
        with archive.open(info) as stream:
            return ArrayColumn(np.lib.format.read_array(stream, allow_pickle=False))
    if info.compress_type != zipfile.ZIP_STORED:
        return ZipColumn(path, info.filename, header.length, header.dtype, header.shape)
    # The local header repeats name and extra field, and their lengths may differ from the
    # central directory's.
    raw.seek(info.header_offset)
    local = raw.read(_LOCAL_HEADER)
    start = info.header_offset + _LOCAL_HEADER
    start += int.from_bytes(local[26:28], "little") + int.from_bytes(local[28:30], "little")
    return FileColumn(path, start + header.length, header.dtype, header.shape)


def _header(stream: Any, where: str) -> Header:
    try:
        version = np.lib.format.read_magic(stream)
        read = (
            np.lib.format.read_array_header_1_0
            if version == (1, 0)
            else np.lib.format.read_array_header_2_0
        )
        shape, fortran, dtype = read(stream)
    except ValueError as cause:
        raise DataError(
            f"{where} is not an npy array: {cause}", hint="write it with np.save or np.savez"
        ) from cause
    if dtype.hasobject:
        raise DataError(
            f"{where} holds Python objects, and reading those would run code from the file",
            hint="save a plain numeric array: np.stack the rows, or pad them to one size",
        )
    if not shape:
        raise DataError(
            f"{where} is a single value", hint="axis 0 of every array counts the samples"
        )
    fortran = fortran and len(shape) > 1
    return Header(dtype, shape, fortran, stream.tell())


def refuse_stand_in(path: Path) -> None:
    """Refuse what is no data file: a missing path, an empty file, a Git-LFS pointer.

    Raises:
        DataError: with what to do about it.
    """
    if not path.is_file():
        what = "is a folder, not a file" if path.is_dir() else "does not exist"
        raise DataError(f"{path} {what}", hint="check the path given for samples or labels")
    try:
        with path.open("rb") as file:
            start = file.read(len(_LFS))
    except OSError as cause:
        raise DataError(
            f"{path} cannot be read: {cause.strerror}", hint="check its permissions"
        ) from cause
    if not start:
        raise DataError(f"{path} is empty", hint="copy or write the file again")
    if start == _LFS:
        raise DataError(
            f"{path} is a Git-LFS pointer, not the data", hint="run `git lfs pull` and try again"
        )
