"""The end of the process while other threads are in calls: wait for them, but not for long.

A daemon thread that comes back from a vendor's call after Python has taken itself apart aborts the
process. So sessions are closed before that, and calls that are running may finish.
"""

from __future__ import annotations

import sys
import threading
import time
from collections.abc import Callable, Iterable
from pathlib import Path
from types import FrameType

WAIT_S = 1.5
_STEP_S = 0.002
_HERE = Path(__file__).parent
# Code of these is between the first look at a session and the end of the vendor's call.
_CALLS = frozenset(
    [str(path) for path in (_HERE / "engines").glob("*.py")]
    + [str(_HERE / f"{name}.py") for name in ("runner", "slots", "stream")]
    + [str(path) for path in _HERE.glob("feedback*.py")]
)


def close_all(closers: Iterable[Callable[[], None]]) -> None:
    """Call each of `closers`, then wait at most `WAIT_S` until no other thread is in a call."""
    for close in closers:
        close()
    end = time.monotonic() + WAIT_S
    while calls_running() and time.monotonic() < end:
        time.sleep(_STEP_S)


def calls_running() -> int:
    """How many other threads are in a call of a session."""
    mine = threading.get_ident()
    # The only way to see calls from outside: to count them would cost each of them.
    frames = sys._current_frames()  # noqa: SLF001
    return sum(_in_call(frame) for thread, frame in frames.items() if thread != mine)


def _in_call(frame: FrameType | None) -> bool:
    while frame is not None:
        if frame.f_code.co_filename in _CALLS:
            return True
        frame = frame.f_back
    return False
