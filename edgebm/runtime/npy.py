"""Arrays as bytes: `.npy` version 1.0, C order, never pickled objects."""

from __future__ import annotations

import io
import math
import zipfile
from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgebm.errors import BundleFormat


def npy_bytes(array: NDArray[Any]) -> bytes:
    """The array as a `.npy` file; equal arrays give equal bytes, whatever their strides."""
    stream = io.BytesIO()
    plain = np.array(array, order="C", copy=True)
    np.lib.format.write_array(stream, plain, version=(1, 0), allow_pickle=False)
    return stream.getvalue()


def npz_bytes(arrays: Mapping[str, NDArray[Any]]) -> bytes:
    """A `.npz` file; unlike `numpy.savez`, any text may be the name of an array."""
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w") as archive:
        for name, array in arrays.items():
            archive.writestr(zipfile.ZipInfo(f"{name}.npy"), npy_bytes(array))
    return stream.getvalue()


def read_npy(raw: bytes, where: str) -> NDArray[Any]:
    """Decode a `.npy` file from memory; never an object array.

    Raises:
        BundleFormat: not such a file, or its header claims another size than there is.
    """
    stream = io.BytesIO(raw)
    try:
        version = np.lib.format.read_magic(stream)
        if version != (1, 0):
            raise BundleFormat(f"{where} is .npy version {version}, not (1, 0)")
        shape, fortran, dtype = np.lib.format.read_array_header_1_0(stream)
    except ValueError as cause:
        raise BundleFormat(f"{where} is not a .npy file: {cause}") from cause
    count = math.prod(shape)
    rest = raw[stream.tell() :]
    if dtype.hasobject or fortran or min(shape, default=0) < 0:
        raise BundleFormat(f"{where} is not a plain array in C order")
    if count * dtype.itemsize != len(rest):
        raise BundleFormat(f"{where} claims {count} values, it holds {len(rest)} bytes")
    return np.frombuffer(rest, dtype).reshape(shape)
