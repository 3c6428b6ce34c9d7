"""What a GPU would do, in the memory of `cuda.c`."""

from __future__ import annotations

import ctypes
import os
from collections.abc import Callable
from typing import Any

import numpy as np

LIBRARY = ctypes.CDLL(os.environ["STANDIN_CUDART"])
DRIVER = ctypes.CDLL("libcuda.so.1")
_CALL = ctypes.CFUNCTYPE(None, ctypes.c_void_p)
LIBRARY.standin_bytes.restype = ctypes.c_void_p
LIBRARY.standin_bytes.argtypes = (ctypes.c_void_p, ctypes.c_size_t)
LIBRARY.standin_launch.argtypes = (_CALL, ctypes.c_void_p, ctypes.c_void_p)
LIBRARY.cudaMalloc.argtypes = (ctypes.POINTER(ctypes.c_void_p), ctypes.c_size_t)
LIBRARY.cudaFree.argtypes = (ctypes.c_void_p,)
LIBRARY.cudaStreamSynchronize.argtypes = (ctypes.c_void_p,)
LIBRARY.cudaGetErrorString.restype = ctypes.c_char_p


def device() -> list[Any]:
    """Name and capability: what a plan is good for."""
    name, value = ctypes.create_string_buffer(256), ctypes.c_int()
    DRIVER.cuDeviceGetName(name, 256, 0)
    found = []
    for attribute in (75, 76):
        DRIVER.cuDeviceGetAttribute(ctypes.byref(value), attribute, 0)
        found.append(value.value)
    return [name.value.decode(), *found]


class Memory:
    """Memory of the device, given back with the object; `code` is not 0 where there is none."""

    def __init__(self, size: int) -> None:
        found = ctypes.c_void_p()
        self.code = LIBRARY.cudaMalloc(ctypes.byref(found), size)
        self.address = found.value or 0

    def __del__(self) -> None:
        if self.address:
            LIBRARY.cudaFree(self.address)


def view(address: int, shape: tuple[int, ...], dtype: np.dtype[Any]) -> np.ndarray[Any, Any]:
    """The bytes of a tensor at an address of the device."""
    size = int(np.prod(shape, dtype=np.int64)) * dtype.itemsize
    where = LIBRARY.standin_bytes(address, max(size, 1))
    assert where, f"{size} bytes at {address:#x} are in no allocation of the device"
    return host(where, shape, dtype)


def host(address: int, shape: tuple[int, ...], dtype: np.dtype[Any]) -> np.ndarray[Any, Any]:
    size = int(np.prod(shape, dtype=np.int64)) * dtype.itemsize
    raw = (ctypes.c_ubyte * max(size, 1)).from_address(address)
    return np.frombuffer(raw, np.uint8, size).view(dtype).reshape(shape)


def launch(call: Callable[[], None], stream: int) -> tuple[int, Any]:
    """Put work into a stream; its code, and what must be kept until it is done."""
    kept = _CALL(lambda _: call())
    return LIBRARY.standin_launch(kept, None, stream), kept


def wait(stream: int) -> int:
    return int(LIBRARY.cudaStreamSynchronize(stream))


def shortage(memory: Memory) -> str:
    """How TensorRT logs that there is none."""
    return f"Error Code 1: Cuda Runtime ({text(memory.code)})"


def text(code: int) -> str:
    return LIBRARY.cudaGetErrorString(code).decode()
