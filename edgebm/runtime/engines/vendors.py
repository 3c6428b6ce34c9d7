"""The packages behind the runtimes: their names, how they are installed, whether they are usable.

Nothing here opens an artifact.
"""

from __future__ import annotations

import contextlib
from importlib import metadata
from types import ModuleType

from edgebm.runtime.engines import RUNTIMES, import_vendor

# What a runtime is imported as, where that is not its own name.
_MODULES = {"onnxruntime-cuda": "onnxruntime"}
_HINTS = {
    "onnxruntime-cuda": "pip install 'edgebm[cuda]'; on a Jetson the onnxruntime-gpu made for its "
    "JetPack. Never beside the package onnxruntime: both bring the same files",
    "tensorrt": "JetPack brings it (package python3-libnvinfer; a virtual environment must be "
    "made with --system-site-packages). On a PC: pip install tensorrt",
}
# What pip knows it as; the first that is installed counts.
_PACKAGES = {
    "openvino": ("openvino",),
    "onnxruntime": ("onnxruntime", "onnxruntime-gpu"),
    "tensorrt": ("tensorrt", "tensorrt-cu13", "tensorrt-cu12"),
    "onnxruntime-cuda": ("onnxruntime-gpu",),
}


def import_runtime(runtime: str) -> ModuleType:
    """Import the package of one of `RUNTIMES`.

    Raises:
        BackendUnavailable: it is not installed or does not load; says how to get it.
    """
    return import_vendor(_MODULES.get(runtime, runtime), _HINTS.get(runtime, ""))


def usable_version(runtime: str) -> str:
    """The version of a runtime that can be used here: imported, and its GPU looked for.

    It may end the process, as what it imports may.

    Raises:
        BackendUnavailable: it cannot be used; says why and what to do.
    """
    if runtime == "onnxruntime-cuda":
        from edgebm.runtime.engines import onnxruntime_cuda

        return onnxruntime_cuda.usable_version()
    if runtime == "tensorrt":
        from edgebm.runtime.engines.tensorrt_library import the_tensorrt

        return str(the_tensorrt()[0].__version__)
    return str(import_runtime(runtime).__version__)


def installed_versions() -> dict[str, str]:
    """The versions of the runtimes that are installed, whether they can be used or not."""
    found: dict[str, str] = {}
    for runtime in RUNTIMES:
        for package in _PACKAGES[runtime]:
            with contextlib.suppress(metadata.PackageNotFoundError):
                found.setdefault(runtime, metadata.version(package))
    return found
