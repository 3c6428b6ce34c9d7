"""Keep the memory of this process in RAM."""

from __future__ import annotations

import ctypes
import os
import re
import sys
from pathlib import Path

from edgebm.runtime.files import read_or_empty

# From <sys/mman.h>, the same on every processor that Linux runs on but for PowerPC, SPARC, Alpha.
# Without the last one all memory that is only reserved, such as the stacks of threads, would be
# filled at once: 160 MiB for a session of a tiny model.
_MCL_CURRENT, _MCL_FUTURE, _MCL_ONFAULT = 1, 2, 4
_CAP_IPC_LOCK = 14
_IS_LINUX = sys.platform == "linux"
_STATUS = Path("/proc/self/status")


def lock_all() -> tuple[bool, str]:
    """Keep every page of this process in RAM from its first use on.

    Returns:
        Whether it was locked, and what that means or why not.
    """
    if not _IS_LINUX:
        return False, f"this works on Linux only, not on {sys.platform}"
    limit_bytes = _limit_bytes()
    if limit_bytes is not None:
        # It might fit now, and a later allocation would fail in the middle of a run.
        return False, (
            f"memory was not locked: only {limit_bytes / 2**20:.3g} MiB may be (RLIMIT_MEMLOCK); "
            "it takes the capability CAP_IPC_LOCK or an unlimited limit (systemd: "
            "LimitMEMLOCK=infinity, docker: --ulimit memlock=-1, else ulimit -l unlimited)"
        )
    refusal = _call("mlockall", _MCL_CURRENT | _MCL_FUTURE | _MCL_ONFAULT)
    if refusal:
        return False, f"memory was not locked: {refusal}"
    return True, "the memory of this process stays in RAM from its first use on"


def unlock_all() -> None:
    """Let the memory of this process go to swap again.

    Raises:
        OSError: the system refused.
    """
    if refusal := _call("munlockall"):
        raise OSError(refusal)


def _call(name: str, *arguments: int) -> str:
    """Call a function of the C library that returns 0; what it says if not."""
    library = ctypes.CDLL(None, use_errno=True)
    if getattr(library, name)(*arguments) == 0:
        return ""
    return f"{name}: {os.strerror(ctypes.get_errno())}"


def _limit_bytes() -> int | None:
    """How much this process may lock; None if there is no limit."""
    import resource  # there is none on Windows

    capabilities = re.search(r"^CapEff:\s*([0-9a-f]+)$", read_or_empty(_STATUS), re.M)
    if capabilities and int(capabilities.group(1), 16) >> _CAP_IPC_LOCK & 1:
        return None
    soft = resource.getrlimit(resource.RLIMIT_MEMLOCK)[0]
    return None if soft == resource.RLIM_INFINITY else soft
