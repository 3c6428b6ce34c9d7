"""A time after which an answer is worthless, and the thread that stops calls at theirs."""

from __future__ import annotations

import math
import threading
import time
from collections.abc import Callable

from edgebm.errors import BackendFailed, DeadlineExceeded, UsageError
from edgebm.runtime.engines import Request


class Deadline:
    """Begins now and ends after `deadline_ms` milliseconds.

    Raises:
        UsageError: `deadline_ms` is no number.
        DeadlineExceeded: there is no time at all.
    """

    def __init__(self, deadline_ms: object) -> None:
        self._started_s = time.perf_counter()
        if isinstance(deadline_ms, bool) or not isinstance(deadline_ms, (int, float)):
            raise UsageError(f"deadline_ms is {deadline_ms!r}, a number is expected")
        self._deadline_ms = deadline_ms
        if math.isnan(deadline_ms) or deadline_ms <= 0:
            raise self._error(f"not started: deadline_ms is {deadline_ms}")
        self.end_s = self._started_s + deadline_ms / 1e3

    @property
    def is_over(self) -> bool:
        """Whether an answer that comes now is late."""
        return time.perf_counter() > self.end_s

    def check(self) -> None:
        """Refuse to start what cannot be in time.

        Raises:
            DeadlineExceeded: the time is over.
        """
        if self.is_over:
            raise self._error(f"not started: {self._deadline_ms} ms were over before the call")

    def infer(self, request: Request, watchdog: Watchdog) -> bool:
        """Run `request`, and stop it when the time is over if its runtime can do that.

        Returns:
            Whether the request may be used again.

        Raises:
            DeadlineExceeded: it was stopped.
        """
        cancel = request.cancel
        if cancel is None:
            request.infer()
            return True
        key = watchdog.watch(self.end_s, cancel)
        try:
            request.infer()
        except BackendFailed as cause:
            if not watchdog.forget(key):
                raise
            raise self._error(f"stopped after {self._deadline_ms} ms") from cause
        except BaseException:
            watchdog.forget(key)
            raise
        # Stopped at its very end, it still has the order to stop.
        return not watchdog.forget(key)

    def _error(self, message: str) -> DeadlineExceeded:
        elapsed_ms = (time.perf_counter() - self._started_s) * 1e3
        return DeadlineExceeded(
            message, details={"deadline_ms": self._deadline_ms, "elapsed_ms": elapsed_ms}
        )


class Watchdog:
    """A thread that stops calls when their time is over; it starts with the first one."""

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._calls: dict[int, tuple[float, Callable[[], None]]] = {}
        self._stopped: set[int] = set()
        self._next_key = 0
        self._wakes_s = math.inf
        self._thread: threading.Thread | None = None
        self._closed = False

    def watch(self, end_s: float, cancel: Callable[[], None]) -> int:
        """Call `cancel` at `end_s` of the performance counter unless `forget` comes first."""
        with self._changed:
            self._next_key += 1
            self._calls[self._next_key] = end_s, cancel
            if self._thread is None:
                self._thread = threading.Thread(
                    target=self._watch, name="edgebm-deadlines", daemon=True
                )
                self._thread.start()
            elif end_s < self._wakes_s:
                self._changed.notify()
            return self._next_key

    def forget(self, key: int) -> bool:
        """Stop watching a call; whether it was cancelled before."""
        with self._changed:
            self._calls.pop(key, None)
            was_stopped = key in self._stopped
            self._stopped.discard(key)
            return was_stopped

    def close(self) -> None:
        """End the thread."""
        with self._changed:
            self._closed = True
            self._changed.notify()

    def _watch(self) -> None:
        with self._changed:
            while not self._closed:
                now = time.perf_counter()
                for key, (end_s, cancel) in list(self._calls.items()):
                    if end_s <= now:
                        del self._calls[key]
                        self._stopped.add(key)
                        cancel()
                self._wakes_s = min((end_s for end_s, _ in self._calls.values()), default=math.inf)
                # With nothing to watch the next call's end is always earlier than infinity.
                wait = None if math.isinf(self._wakes_s) else max(0.0, self._wakes_s - now)
                self._changed.wait(wait)
