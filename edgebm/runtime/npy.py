"""Arrays as bytes: `.npy` version 1.0, C order, never pickled objects."""

from __future__ import annotations

import io
import math
import re
from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgebm.errors import BundleFormat

_MAGIC = b"\x93NUMPY\x01\x00"
# Up to 64 sizes, as numpy allows; of 19 digits, as 64 bits do.
_HEADER = re.compile(
    rb"\{'descr': '([^']*)', 'fortran_order': (True|False), "
    rb"'shape': \(((?:[0-9]{1,19}, ?){0,64}(?:[0-9]{1,19})?)\), \} *\n"
)
_NUMBERS = re.compile(rb"\|b1|\|[iu]1|[<>](?:[iu][248]|f[248])")


def npy_bytes(array: NDArray[Any]) -> bytes:
    """The array as a `.npy` file; equal arrays give equal bytes, whatever their strides."""
    stream = io.BytesIO()
    plain = np.array(array, order="C", copy=True)
    np.lib.format.write_array(stream, plain, version=(1, 0), allow_pickle=False)
    return stream.getvalue()


def npz_bytes(arrays: Mapping[str, NDArray[Any]]) -> bytes:
    """A `.npz` file; unlike `numpy.savez`, any text may be the name of an array."""
    import zipfile  # which takes as long to import as half of the rest here

    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w") as archive:
        for name, array in arrays.items():
            archive.writestr(zipfile.ZipInfo(f"{name}.npy"), npy_bytes(array))
    return stream.getvalue()


def read_npy(raw: bytes, where: str) -> NDArray[Any]:
    """Decode a `.npy` file from memory as `npy_bytes` writes it; never an object array.

    numpy's own reader takes the header for Python source, and fails in as many ways.

    Raises:
        BundleFormat: not such a file, or its header claims another size than there is.
    """
    if raw[: len(_MAGIC)] != _MAGIC:
        raise BundleFormat(f"{where} is not a .npy file of version 1.0")
    start = len(_MAGIC) + 2
    rest = raw[start + int.from_bytes(raw[len(_MAGIC) : start], "little") :]
    header = _HEADER.fullmatch(raw, start, len(raw) - len(rest))
    if header is None:
        raise BundleFormat(f"{where} is not a .npy file: its header cannot be read")
    descr, fortran, sizes = header.groups()
    if not _NUMBERS.fullmatch(descr) or fortran == b"True":
        raise BundleFormat(f"{where} is not a plain array in C order")
    dtype = np.dtype(descr.decode())
    shape = tuple(int(size) for size in sizes.split(b",") if size.strip())
    count = math.prod(shape)
    if count * dtype.itemsize != len(rest):
        raise BundleFormat(f"{where} claims {count} values, it holds {len(rest)} bytes")
    return np.frombuffer(rest, dtype).reshape(shape)
