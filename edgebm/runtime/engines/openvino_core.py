"""OpenVINO's Core: one for each process, and what a fork leaves of it."""

from __future__ import annotations

import ctypes
import os
from typing import Any

from edgebm.errors import ForkedUse

# By process: what a forked child got from its parent is not fit for use.
_CORES: dict[int, Any] = {}


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
