"""Memory of the device, and pinned memory of the host as numpy arrays."""

from __future__ import annotations

import ctypes
import math
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgebm.runtime.engines.cuda_runtime import CudaRuntime

# TensorRT wants addresses at multiples of this; libcudart gives no others.
ALIGNMENT = 256


class DeviceBlock:
    """Memory of the device, given back with the object.

    Raises:
        ResourceError: there is not so much.
    """

    __slots__ = ("_free", "address", "size")

    def __init__(self, cuda: CudaRuntime, count: int) -> None:
        # An empty tensor needs an address, too.
        self.size = -(-max(count, 1) // ALIGNMENT) * ALIGNMENT
        self.address = 0
        self._free = cuda.free
        self.address = cuda.allocate(self.size)

    def __del__(self) -> None:
        if self.address:
            self._free(self.address)


class Stream:
    """A stream of the device, given back with the object once all in it is through."""

    __slots__ = ("_close", "handle")

    def __init__(self, cuda: CudaRuntime) -> None:
        self.handle = 0
        self._close = cuda.close_stream
        self.handle = cuda.open_stream()

    def __del__(self) -> None:
        if self.handle:
            self._close(self.handle)


class _PinnedBlock:
    __slots__ = ("_free", "address")

    def __init__(self, cuda: CudaRuntime, count: int) -> None:
        self.address = 0
        self._free = cuda.free_host
        self.address = cuda.allocate_host(count)

    def __del__(self) -> None:
        if self.address:
            self._free(self.address)


def pinned_zeros(cuda: CudaRuntime, shape: Sequence[int], dtype: np.dtype[Any]) -> NDArray[Any]:
    """A C-contiguous array of zeros in pinned memory, which lives as long as any view of it.

    Raises:
        ResourceError: there is not so much.
    """
    count = math.prod(shape) * dtype.itemsize
    block = _PinnedBlock(cuda, max(count, 1))
    raw: Any = (ctypes.c_ubyte * max(count, 1)).from_address(block.address)
    raw.block = block  # the array keeps `raw`, and with it the memory
    array: NDArray[Any] = np.frombuffer(raw, np.uint8, count).view(dtype).reshape(shape)
    array.fill(0)
    return array
