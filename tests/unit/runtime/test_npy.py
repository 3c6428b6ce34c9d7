from __future__ import annotations

import io

import numpy as np
import pytest

from edgebm.errors import BundleFormat
from edgebm.runtime.npy import npy_bytes, npz_bytes, read_npy


@pytest.mark.parametrize("dtype", ["f2", "f4", "f8", "i1", "i8", "u1", "?"])
@pytest.mark.parametrize("shape", [(), (0,), (3,), (2, 3), (1, 2, 3, 4)])
def test_arrays_come_back(dtype: str, shape: tuple[int, ...]) -> None:
    array = np.ones(shape, dtype)
    back = read_npy(npy_bytes(array), "x")
    assert back.dtype == array.dtype
    assert back.shape == shape
    np.testing.assert_array_equal(back, array)


def test_equal_arrays_give_equal_bytes() -> None:
    array = np.arange(12.0).reshape(3, 4)
    assert npy_bytes(np.asfortranarray(array)) == npy_bytes(array)
    assert npy_bytes(np.arange(24.0).reshape(3, 8)[:, ::2] / 2) == npy_bytes(array)


def test_npz_takes_every_name_and_numpy_reads_it() -> None:
    arrays = {"file": np.ones(2), "allow_pickle": np.zeros(1), "a/b": np.ones(3, "i4")}
    with np.load(io.BytesIO(npz_bytes(arrays)), allow_pickle=False) as back:
        assert sorted(back.files) == sorted(arrays)
        np.testing.assert_array_equal(back["a/b"], arrays["a/b"])


def test_a_cut_file_is_refused() -> None:
    data = npy_bytes(np.ones(4))
    for length in range(len(data)):
        with pytest.raises(BundleFormat):
            read_npy(data[:length], "x")
