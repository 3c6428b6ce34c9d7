"""How a runtime that compiles for minutes is watched, limited and stopped."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

BUILD_S = 3600.0  # that a build may take; large models take half an hour on small boards


class Timings(Protocol):
    """What a builder has measured of kernels on this device, kept from build to build.

    The bytes are code to the vendor: they come from this device or from nowhere.
    """

    def read(self) -> bytes:
        """What was kept; empty where there is nothing."""
        ...

    def write(self, content: bytes) -> None:
        """Keep this in place of what was kept, where that is possible."""
        ...


@dataclass(frozen=True, slots=True)
class Building:
    """What the caller wants of a build; runtimes that compile at once have no use for it.

    `limit_s` is the seconds after which it is ended. `workspace_bytes` is the most scratch memory
    that a layer may have on the device; None: a quarter of what is free there, 1 GiB at most.
    `progress(phase, done, total)` is called for each phase on its way, in the thread that waits.
    `is_cancelled()` is asked several times a second; True ends the build. `timings` make later
    builds shorter.
    """

    limit_s: float = BUILD_S
    workspace_bytes: int | None = None
    progress: Callable[[str, int, int], None] | None = None
    is_cancelled: Callable[[], bool] | None = None
    timings: Timings | None = None
