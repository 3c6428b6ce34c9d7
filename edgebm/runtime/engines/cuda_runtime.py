"""The few functions of NVIDIA's libcudart that an engine needs, through ctypes.

Their C interface is the same in CUDA 12 and 13. What a call returns becomes an error of ours: an
error that ends all use of the GPU in this process is remembered, and every later call says so.
"""

from __future__ import annotations

import ctypes
import importlib.util
import os
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from edgebm.errors import BackendFailed, BackendLost, BackendUnavailable, ResourceError

_MAJORS = (13, 12)
_TO_DEVICE, _TO_HOST = 1, 2
_NON_BLOCKING = 1  # of a stream: it does not wait for the default one
_SUCCESS, _NO_MEMORY = 0, 2
# cudaError in driver_types.h, unchanged since CUDA 10.1. After one of these nothing works any more
# in this process: the driver has taken the context apart, or the device is gone.
_FATAL = frozenset(
    {
        3,  # the driver cannot be initialized any more
        4,  # it is being unloaded
        46,  # the device is busy or unavailable
        100,  # no device
        101,  # not this device
        201,  # the context is invalid
        214,  # ECC error that cannot be corrected
        220,  # the same of NVLink
        700,  # illegal address
        702,  # launch timeout
        709,  # the context is destroyed
        710,  # assert
        714,  # hardware stack
        715,  # illegal instruction
        716,  # misaligned address
        717,  # address space
        718,  # program counter
        719,  # launch failure
        721,  # contained error
        802,  # the system is not ready
        809,  # another client of MPS ended it
        999,  # unknown
    }
)
_AGAIN = "start the process anew: CUDA works again only there; if it does not, restart the device"
_MEMORY_HELP = "free memory of the device, use smaller inputs, or fewer sessions and threads"


class CudaRuntime:
    """libcudart of this process. Threads may share it.

    `lost` is empty as long as the GPU can be used, else it says what ended that.
    """

    def __init__(self, driver: tuple[int, int]) -> None:
        """`driver` is the newest CUDA version that the driver takes.

        Raises:
            BackendUnavailable: there is no libcudart that the driver takes.
        """
        self.lost = ""
        # A forked child gives nothing back: it is not its own.
        self._process = os.getpid()
        self._lock = threading.Lock()
        library = _library(driver)
        c_int, c_uint, size, pointer = (
            ctypes.c_int,
            ctypes.c_uint,
            ctypes.c_size_t,
            ctypes.c_void_p,
        )
        types: dict[str, tuple[Any, ...]] = {
            "cudaRuntimeGetVersion": (ctypes.POINTER(c_int),),
            "cudaMemGetInfo": (ctypes.POINTER(size), ctypes.POINTER(size)),
            "cudaMalloc": (ctypes.POINTER(pointer), size),
            "cudaFree": (pointer,),
            "cudaHostAlloc": (ctypes.POINTER(pointer), size, c_uint),
            "cudaFreeHost": (pointer,),
            "cudaStreamCreateWithFlags": (ctypes.POINTER(pointer), c_uint),
            "cudaStreamDestroy": (pointer,),
            "cudaStreamSynchronize": (pointer,),
            "cudaMemcpyAsync": (pointer, pointer, size, c_int, pointer),
            "cudaGetLastError": (),
        }
        self._functions: dict[str, Callable[..., int]] = {}
        for name, arguments in types.items():
            self._functions[name] = _typed(library, name, arguments, c_int)
        self._texts = [
            _typed(library, name, (c_int,), ctypes.c_char_p)
            for name in ("cudaGetErrorName", "cudaGetErrorString")
        ]
        self._copy = self._functions["cudaMemcpyAsync"]
        self._synchronize = self._functions["cudaStreamSynchronize"]

    def version(self) -> str:
        """Of the library, such as "12.6"."""
        value = ctypes.c_int()
        self._call("cudaRuntimeGetVersion", ctypes.byref(value))
        return f"{value.value // 1000}.{value.value % 1000 // 10}"

    def free_bytes(self) -> int:
        """Memory of the device that is free now; a Jetson shares it with the processor."""
        free, total = ctypes.c_size_t(), ctypes.c_size_t()
        self._call("cudaMemGetInfo", ctypes.byref(free), ctypes.byref(total))
        return free.value

    def allocate(self, count: int) -> int:
        """The address of `count` bytes on the device, a multiple of 256.

        Raises:
            ResourceError: there is no memory.
            BackendLost, BackendFailed: as all calls.
        """
        return self._pointer("cudaMalloc", f"{count} bytes on the device", count)

    def allocate_host(self, count: int) -> int:
        """The address of `count` bytes on the host that the device copies without a detour."""
        return self._pointer("cudaHostAlloc", f"{count} pinned bytes on the host", count, 0)

    def open_stream(self) -> int:
        """A stream that does not wait for the default one."""
        return self._pointer("cudaStreamCreateWithFlags", "a stream", _NON_BLOCKING)

    def free(self, address: int) -> None:
        """Give memory of the device back. What goes wrong is for the next call to say."""
        if os.getpid() == self._process:
            self._functions["cudaFree"](address)

    def free_host(self, address: int) -> None:
        """As `free`, of `allocate_host`."""
        if os.getpid() == self._process:
            self._functions["cudaFreeHost"](address)

    def close_stream(self, stream: int) -> None:
        """Wait for what runs in a stream and give it back, as `free`."""
        if os.getpid() == self._process:
            self._synchronize(stream)
            self._functions["cudaStreamDestroy"](stream)

    def to_device(self, device: int, host: int, count: int, stream: int) -> None:
        """Copy `count` bytes, in the order of the stream; `host` must stay until it is through."""
        if code := self._copy(device, host, count, _TO_DEVICE, stream):
            raise self.error(code, "copying to the device")

    def to_host(self, host: int, device: int, count: int, stream: int) -> None:
        """As `to_device`, the other way."""
        if code := self._copy(host, device, count, _TO_HOST, stream):
            raise self.error(code, "copying from the device")

    def wait(self, stream: int, doing: str = "running") -> None:
        """Wait for all that was put into a stream."""
        if code := self._synchronize(stream):
            raise self.error(code, doing)

    def drain(self, stream: int) -> None:
        """As `wait`, after an error: there is nothing more to say."""
        self._synchronize(stream)

    def refuse_if_lost(self) -> None:
        """Say at once that the GPU cannot be used any more.

        Raises:
            BackendLost: it was lost before.
        """
        if self.lost:
            raise BackendLost(f"the GPU was lost before: {self.lost}", hint=_AGAIN)

    def error(self, code: int, doing: str) -> BackendLost | BackendFailed | ResourceError:
        """What a code that is no success means."""
        name, text = (
            (found(code) or b"").decode(errors="replace") or "?" for found in self._texts
        )
        message = f"CUDA failed {doing}: {text} ({name}, {code})"
        details = {"code": code, "name": name}
        if code == _NO_MEMORY:
            # It stays the thread's last error otherwise, and TensorRT takes it for its own.
            self._functions["cudaGetLastError"]()
            return ResourceError(message, hint=_MEMORY_HELP, details=details)
        if code in _FATAL:
            with self._lock:
                self.lost = self.lost or message
            return BackendLost(message, hint=_AGAIN, details=details)
        self._functions["cudaGetLastError"]()
        return BackendFailed(message, details=details)

    def _pointer(self, name: str, what: str, *arguments: Any) -> int:
        self.refuse_if_lost()
        found = ctypes.c_void_p()
        if code := self._functions[name](ctypes.byref(found), *arguments):
            raise self.error(code, f"asking for {what}")
        return int(found.value or 0)

    def _call(self, name: str, *arguments: Any) -> None:
        self.refuse_if_lost()
        if code := self._functions[name](*arguments):
            raise self.error(code, f"in {name}")


def _library(driver: tuple[int, int]) -> ctypes.CDLL:
    """The newest libcudart that the driver takes; the loader's own before those of Python."""
    reasons = []
    names = [f"libcudart.so.{major}" for major in _MAJORS if major <= driver[0]]
    for name in names:
        for place in (name, *_in_packages(name)):
            try:
                return ctypes.CDLL(place)
            except OSError as cause:  # noqa: PERF203 - a handful of places
                reasons.append(str(cause))
    wanted = " or ".join(names) or f"libcudart for CUDA {driver[0]}"
    raise BackendUnavailable(
        f"the CUDA runtime library is missing: {'; '.join(reasons) or wanted}",
        hint=f"install {wanted} (JetPack has it: 'apt install nvidia-cuda'), or add its folder to "
        "LD_LIBRARY_PATH"
        if names
        else f"update the driver: it takes CUDA {driver[0]}.{driver[1]}, 12.0 is the least",
    )


def _in_packages(name: str) -> Iterator[str]:
    """Where NVIDIA's packages for Python keep a library."""
    spec = importlib.util.find_spec("nvidia")
    for folder in (spec.submodule_search_locations or ()) if spec else ():
        yield from map(str, sorted(Path(folder).glob(f"*/lib/{name}")))


def _typed(library: ctypes.CDLL, name: str, arguments: tuple[Any, ...], result: Any) -> Any:
    try:
        found = library[name]
    except AttributeError as cause:
        raise BackendUnavailable(
            f"the CUDA runtime library has no {name}", hint="install another build of it"
        ) from cause
    found.argtypes, found.restype = arguments, result
    return found
