"""A time after which an answer is worthless."""

from __future__ import annotations

import math
import time

from edgebm.errors import DeadlineExceeded, UsageError


class Deadline:
    """Begins now and ends after `deadline_ms` milliseconds.

    Raises:
        UsageError: `deadline_ms` is no number.
        DeadlineExceeded: there is no time at all.
    """

    def __init__(self, deadline_ms: object) -> None:
        self._started = time.perf_counter()
        if isinstance(deadline_ms, bool) or not isinstance(deadline_ms, (int, float)):
            raise UsageError(f"deadline_ms is {deadline_ms!r}, a number is expected")
        if math.isnan(deadline_ms) or deadline_ms <= 0:
            raise DeadlineExceeded(
                f"not started: deadline_ms is {deadline_ms}", details={"deadline_ms": deadline_ms}
            )
        self._deadline_ms = deadline_ms

    def check(self) -> None:
        """Raise if the time is over.

        Raises:
            DeadlineExceeded: says by how much.
        """
        elapsed_ms = (time.perf_counter() - self._started) * 1e3
        if elapsed_ms > self._deadline_ms:
            raise DeadlineExceeded(
                f"the answer came after {elapsed_ms:.3f} ms, {self._deadline_ms} ms were allowed",
                details={"deadline_ms": self._deadline_ms, "elapsed_ms": elapsed_ms},
            )
