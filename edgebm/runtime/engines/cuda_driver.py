"""Which NVIDIA GPU this process can use, asked of the driver alone.

It is asked before any object of TensorRT exists: without a driver those objects are made and end
the process when they are taken apart.
"""

from __future__ import annotations

import ctypes
import os
import re
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from edgebm.errors import BackendUnavailable, ForkedUse

_LIBRARY = "libcuda.so.1"
_L4T = Path("/etc/nv_tegra_release")
# CUdevice_attribute and CUresult in cuda.h; they are the same in CUDA 11 to 13.
_MULTIPROCESSORS, _MAJOR, _MINOR = 16, 75, 76
_NO_DEVICE = 100
_NAME_BYTES = 256
_HELP = {
    _NO_DEVICE: "look whether the GPU shows in 'nvidia-smi' and in CUDA_VISIBLE_DEVICES; a "
    "container needs '--gpus all' or '--runtime nvidia'",
    803: "the driver's kernel module and its library are of different versions: restart",
    804: "the library for newer CUDA versions does not work on this GPU: remove it, or update "
    "the driver",
}
_ANY_HELP = "'nvidia-smi' (on a Jetson 'tegrastats') shows whether the driver works; restart"
# Processes that have begun to use CUDA: what a forked child got from its parent is of no use.
_USERS: set[int] = set()


@dataclass(frozen=True, slots=True)
class Gpu:
    """The first GPU. `driver` is the newest CUDA that the driver takes; `l4t` is empty on a PC."""

    name: str
    compute_capability: str
    multiprocessors: int
    driver: tuple[int, int]
    l4t: str

    def facts(self) -> dict[str, Any]:
        """Plain JSON types."""
        return {**asdict(self), "driver": ".".join(map(str, self.driver))}


def probe_gpu() -> Gpu:
    """Ask the driver for its first GPU.

    Raises:
        BackendUnavailable: no driver, no GPU, or one that does not work; says what to do.
        ForkedUse: this is a forked child of a process that has used CUDA.
    """
    refuse_forked()
    driver = _Driver()
    driver.start()
    device = ctypes.c_int()
    driver.ask("cuDeviceGet", ctypes.byref(device), 0)
    name = ctypes.create_string_buffer(_NAME_BYTES)
    driver.ask("cuDeviceGetName", name, _NAME_BYTES, device)
    version = driver.number("cuDriverGetVersion")
    major, minor, count = (
        driver.number("cuDeviceGetAttribute", attribute, device)
        for attribute in (_MAJOR, _MINOR, _MULTIPROCESSORS)
    )
    return Gpu(
        name.value.decode(errors="replace"),
        f"{major}.{minor}",
        count,
        (version // 1000, version % 1000 // 10),
        l4t_release(),
    )


def refuse_forked() -> None:
    """Note that this process uses CUDA.

    Raises:
        ForkedUse: its parent has used CUDA before it forked.
    """
    process = os.getpid()
    if _USERS - {process}:
        raise ForkedUse(
            "CUDA was used in the parent process, and cannot be used in a forked child",
            hint="start the process with the 'spawn' method, or fork before the first load",
        )
    _USERS.add(process)


def l4t_release(path: Path = _L4T) -> str:
    """The release of Jetson Linux, such as "36.4.3"; empty on other machines."""
    try:
        text = path.read_text(encoding="ascii", errors="replace")
    except OSError:  # no Jetson, or a container without the file
        return ""
    found = re.search(r"R(\d+).*?REVISION:\s*([\d.]+)", text)
    return f"{found.group(1)}.{found.group(2)}" if found else " ".join(text.split())[:80]


class _Driver:
    """libcuda with the types of what is called in it."""

    def __init__(self) -> None:
        try:
            self._library = ctypes.CDLL(_LIBRARY)
        except OSError as cause:
            raise BackendUnavailable(
                f"there is no NVIDIA driver: {cause}",
                hint="install the driver (on a Jetson JetPack has it; in a container start it "
                "with '--gpus all' or '--runtime nvidia'), or load another variant",
            ) from cause
        pointer = ctypes.POINTER(ctypes.c_int)
        c_int, c_uint = ctypes.c_int, ctypes.c_uint
        self._types: dict[str, tuple[Any, ...]] = {
            "cuInit": (c_uint,),
            "cuDeviceGetCount": (pointer,),
            "cuDeviceGet": (pointer, c_int),
            "cuDeviceGetName": (ctypes.c_char_p, c_int, c_int),
            "cuDeviceGetAttribute": (pointer, c_int, c_int),
            "cuDriverGetVersion": (pointer,),
            "cuGetErrorString": (c_int, ctypes.POINTER(ctypes.c_char_p)),
        }

    def start(self) -> None:
        self.ask("cuInit", 0)
        if not self.number("cuDeviceGetCount"):
            raise BackendUnavailable(
                "there is an NVIDIA driver, but it finds no GPU", hint=_HELP[_NO_DEVICE]
            )

    def number(self, name: str, *arguments: Any) -> int:
        value = ctypes.c_int()
        self.ask(name, ctypes.byref(value), *arguments)
        return value.value

    def ask(self, name: str, *arguments: Any) -> None:
        code = self._function(name)(*arguments)
        if code == _NO_DEVICE:
            raise BackendUnavailable(
                "there is an NVIDIA driver, but it finds no GPU", hint=_HELP[code]
            )
        if code:
            raise BackendUnavailable(
                f"the NVIDIA driver does not work: {name} gives {code} ({self._text(code)})",
                hint=_HELP.get(code, _ANY_HELP),
                details={"function": name, "code": code},
            )

    def _text(self, code: int) -> str:
        text = ctypes.c_char_p()
        known = self._function("cuGetErrorString")(code, ctypes.byref(text)) == 0
        return (text.value or b"").decode(errors="replace") if known else "unknown to it"

    def _function(self, name: str) -> Callable[..., int]:
        try:
            found = self._library[name]
        except AttributeError as cause:
            raise BackendUnavailable(
                f"{_LIBRARY} is no NVIDIA driver: it has no {name}", hint=_ANY_HELP
            ) from cause
        found.restype, found.argtypes = ctypes.c_int, self._types[name]
        return found
