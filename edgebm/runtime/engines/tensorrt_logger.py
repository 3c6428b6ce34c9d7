"""TensorRT's logger and progress monitor, as sub-classes of its own classes."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import SupportsInt

import tensorrt as trt

from edgebm.runtime.engines.tensorrt_library import ERRORS

Report = Callable[[str, int, int], None]


class Logger(trt.ILogger):
    """Keeps errors; the rest is of no use to people."""

    def __init__(self) -> None:
        trt.ILogger.__init__(self)

    def log(self, severity: trt.ILogger.Severity, msg: str) -> None:
        """Called by TensorRT from any thread."""
        if severity in (trt.ILogger.ERROR, trt.ILogger.INTERNAL_ERROR):
            ERRORS.add(msg)


class Progress(trt.IProgressMonitor):
    """Hands each phase on to `report`, and ends the build once `stop` is set.

    TensorRT calls it from several threads.
    """

    def __init__(self, report: Report, stop: threading.Event) -> None:
        trt.IProgressMonitor.__init__(self)
        self._report, self._stop = report, stop
        self._lock = threading.Lock()
        self._totals: dict[str, int] = {}

    def phase_start(
        self, phase_name: str, parent_phase: str | None, num_steps: SupportsInt
    ) -> None:
        with self._lock:
            self._totals[phase_name] = int(num_steps)
            self._report(phase_name, 0, int(num_steps))

    def step_complete(self, phase_name: str, step: SupportsInt) -> bool:
        with self._lock:
            total = self._totals.get(phase_name, 0)
            self._report(phase_name, min(int(step) + 1, total), total)
        return not self._stop.is_set()

    def phase_finish(self, phase_name: str) -> None:
        with self._lock:
            total = self._totals.pop(phase_name, 0)
            self._report(phase_name, total, total)
