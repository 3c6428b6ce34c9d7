"""The TensorRT of this process: whether it is one that edgebm knows, and what it logs.

Modules that name things of TensorRT import it at their top, so they are imported only behind
`the_tensorrt`, which looks for a GPU and at the version first.
"""

from __future__ import annotations

import ctypes
import os
import re
import threading
from collections import deque
from types import ModuleType
from typing import Any
from weakref import WeakSet

from edgebm.errors import BackendError, BackendFailed, BackendUnavailable, ResourceError
from edgebm.runtime.engines import import_vendor
from edgebm.runtime.engines.cuda_driver import Gpu, probe_gpu

OLDEST, NEWEST = (10, 3), (11, 4)
_WINDOW = "10.3 to 11.4"
_ELSEWHERE = "or load the bundle's variant for ONNX Runtime"
_MISSING = (
    "JetPack has it (apt install python3-libnvinfer, and a virtual environment with "
    "--system-site-packages); on a PC: pip install tensorrt"
)
_ERRORS_KEPT = 50
_ERRORS_SHOWN = 5
_SHORTAGE = re.compile(
    "out of memory|OutOfMemory|bad_alloc|Requested amount of GPU memory"
    "|[Ii]nsufficient (memory|workspace)|MEM_ALLOC_FAILED"
)
# Its one logger. TensorRT keeps a pointer to it for as long as the process lives.
_LOGGERS: list[Any] = []
# What a forked child may not take apart.
_KEPT: WeakSet[Any] = WeakSet()


def the_tensorrt() -> tuple[ModuleType, Gpu]:
    """TensorRT and the GPU that it runs on.

    Raises:
        BackendUnavailable: no driver or GPU; TensorRT is missing, half installed, too old or too
            new. Says what to do.
        ForkedUse: as `probe_gpu`.
    """
    gpu = probe_gpu()
    trt = _imported()
    version = str(getattr(trt, "__version__", ""))
    numbers = re.match(r"(\d+)\.(\d+)", version)
    if numbers is None or not hasattr(trt, "Runtime"):
        raise BackendUnavailable(
            f"the package tensorrt in {_place(trt)} is not NVIDIA's", hint=_MISSING
        )
    release = (int(numbers.group(1)), int(numbers.group(2)))
    if release < OLDEST:
        raise BackendUnavailable(
            f"TensorRT {version} is too old: edgebm takes {_WINDOW}",
            hint=f"update the board (JetPack 6.1 has 10.3), {_ELSEWHERE}",
        )
    if release > NEWEST:
        raise BackendUnavailable(
            f"TensorRT {version} is newer than this edgebm knows: it takes {_WINDOW}",
            hint=f"update edgebm, install TensorRT 11.4 or older, {_ELSEWHERE}",
        )
    if not hasattr(trt, "OnnxParser"):
        raise BackendUnavailable(
            f"TensorRT {version} is half installed: it has no parser for ONNX",
            hint="install the ONNX parser of the same version (libnvonnxparsers)",
        )
    return trt, gpu


def _imported() -> ModuleType:
    try:
        return import_vendor("tensorrt")
    except BackendUnavailable as why:
        cause = why.__cause__
        if isinstance(cause, ModuleNotFoundError) and cause.name == "tensorrt":
            raise BackendUnavailable("TensorRT is not installed", hint=_MISSING) from cause
        raise BackendUnavailable(
            f"TensorRT is half installed: the package for Python is there and does not load: "
            f"{cause}",
            hint="install package and libraries (libnvinfer, libnvonnxparsers, "
            "libnvinfer-plugin) of one version",
        ) from cause


def _place(trt: ModuleType) -> str:
    return str(getattr(trt, "__file__", None) or next(iter(getattr(trt, "__path__", ["?"]))))


class ErrorLog:
    """The newest errors that TensorRT logged, from any of its threads."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._lines: deque[str] = deque(maxlen=_ERRORS_KEPT)
        self._count = 0

    def add(self, text: str) -> None:
        with self._lock:
            self._lines.append(" ".join(text.split()))
            self._count += 1

    def mark(self) -> int:
        """Where the log stands now, for `since`."""
        with self._lock:
            return self._count

    def since(self, mark: int) -> list[str]:
        """The errors behind `mark` that are still kept, each once."""
        with self._lock:
            new = min(self._count - mark, len(self._lines))
            return list(dict.fromkeys(list(self._lines)[len(self._lines) - new :]))


ERRORS = ErrorLog()


def the_logger() -> Any:
    """The one logger of this process, which hands errors to `ERRORS`."""
    if not _LOGGERS:
        from edgebm.runtime.engines.tensorrt_logger import Logger

        _LOGGERS.append(Logger())
    return _LOGGERS[0]


def tensorrt_error(name: str, doing: str, mark: int) -> BackendError:
    """What TensorRT's None or False means, by the errors that it logged since `mark`."""
    lines = ERRORS.since(mark)
    said = " | ".join(lines[-_ERRORS_SHOWN:])[:1000] or "it does not say why"
    message = f"{name} failed {doing}: {said}"
    details = {"vendor": name, "errors": lines}
    if any(_SHORTAGE.search(line) for line in lines):
        return ResourceError(
            message, hint="free memory of the device, or use smaller inputs", details=details
        )
    return BackendFailed(message, details=details)


def keep_in_children(thing: Any) -> None:
    """Take `thing` apart in no forked child: the GPU's context is not there."""
    _KEPT.add(thing)


def _keep() -> None:
    for thing in _KEPT:
        ctypes.pythonapi.Py_IncRef(ctypes.py_object(thing))


os.register_at_fork(after_in_child=_keep)
