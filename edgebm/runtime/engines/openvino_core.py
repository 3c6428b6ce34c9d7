"""The OpenVINO of this process: its one Core, how it is asked to compile, what it is exactly."""

from __future__ import annotations

import ctypes
import os
from pathlib import Path
from typing import Any

from edgebm.errors import ForkedUse
from edgebm.runtime.engines import import_vendor, vendor_error
from edgebm.runtime.engines.openvino_request import vendor_version
from edgebm.spec import EngineConfig

# By process: what a forked child got from its parent is not fit for use.
_CORES: dict[int, Any] = {}
_ABOUT_THE_DEVICE = ("FULL_DEVICE_NAME", "DEVICE_ARCHITECTURE", "OPTIMIZATION_CAPABILITIES")


def the_core(ov: Any) -> Any:
    """The one Core of this process, which is never closed.

    A Core gives its thread a stack for signal handlers and frees it at its end. When two end in
    the order in which they began, or one ends in another thread, the thread is left with a
    freed stack, and the next Ctrl-C kills the process.

    Raises:
        ForkedUse: this is a forked child of a process that has used OpenVINO.
    """
    process = os.getpid()
    if _CORES.keys() - {process}:
        raise ForkedUse(
            "OpenVINO was used in the parent process, and waits here for threads that only live "
            "there",
            hint="start the process with the 'spawn' method, or fork before the first load",
        )
    return _CORES.get(process) or _CORES.setdefault(process, ov.Core())


def _keep_cores() -> None:
    """Take no Core apart in a forked child, where its threads are missing.

    Otherwise a child that ends as programs do waits for them for ever.
    """
    for core in _CORES.values():
        ctypes.pythonapi.Py_IncRef(ctypes.py_object(core))


os.register_at_fork(after_in_child=_keep_cores)


def compile_options(config: EngineConfig) -> dict[str, str]:
    """Vendor options that a configuration means."""
    options = {
        "PERFORMANCE_HINT": "LATENCY",
        "INFERENCE_PRECISION_HINT": config.precision,
        "NUM_STREAMS": "1",
        # Pinning costs two system calls per inference and piles processes up on the same cores.
        "ENABLE_CPU_PINNING": "NO",
    }
    if config.threads:
        options["INFERENCE_NUM_THREADS"] = str(config.threads)
    settings = dict(config.settings)
    if settings.pop("profile", "0") == "1":
        settings["PERF_COUNT"] = "YES"
    return {**options, **settings}


def cache_facts(config: EngineConfig) -> dict[str, Any]:
    """What OpenVINO's compiled models depend on, beside the artifact and the processor.

    Raises:
        BackendUnavailable: OpenVINO does not load.
        BackendFailed: it does not say what it is.
        ForkedUse: as `the_core`.
    """
    ov = import_vendor("openvino")
    core = the_core(ov)
    try:
        return {
            "version": str(ov.__version__),
            "plugin": {name: v.build_number for name, v in core.get_versions("CPU").items()},
            "libraries": _libraries(Path(str(ov.__file__)).parent),
            "device": {name: _plain(core.get_property("CPU", name)) for name in _ABOUT_THE_DEVICE},
            "options": compile_options(config),
        }
    except Exception as cause:
        raise vendor_error(f"openvino {vendor_version(ov)}", "saying what it is", cause) from cause


def _libraries(package: Path) -> list[list[Any]]:
    """Name, size and time of change: a build that was replaced under the same version shows."""
    folders = [folder for folder in (package, package / "libs") if folder.is_dir()]
    found = [(path, path.stat()) for folder in folders for path in folder.glob("*.so*")]
    return sorted([path.name, status.st_size, status.st_mtime_ns] for path, status in found)


def _plain(value: Any) -> Any:
    return sorted(map(str, value)) if isinstance(value, (list, tuple, set)) else str(value)
