"""Locks between processes: `flock`, which the system lets go of when their owner dies."""

from __future__ import annotations

import fcntl
import time

_POLL_S = 0.02


def locked(file: int, wait_s: float) -> bool:
    """Lock an open file until it is closed; False where another held it for `wait_s`.

    Raises:
        OSError: the system's own.
    """
    end = time.monotonic() + wait_s
    while True:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:  # noqa: PERF203 - it waits
            if time.monotonic() >= end:
                return False
            time.sleep(_POLL_S)
        else:
            return True
