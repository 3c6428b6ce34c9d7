"""Time calls; report a percentile only when there were enough calls to know it."""

from __future__ import annotations

import time
from array import array
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from edgebm.errors import StateError, UsageError

# Calls needed to claim a percentile with 99 % confidence: the early-stopping rule of MLPerf
# Inference (Reddi et al. 2020, arXiv:1911.02549, section 5; table in the inference rules).
CALLS_NEEDED = {50.0: 1, 90.0: 64, 95.0: 130, 99.0: 662, 99.9: 6636}
_MAX_CALLS = 10_000_000


@dataclass(frozen=True, slots=True)
class Timing:
    """Latency of single calls in milliseconds; None where there were too few calls."""

    p50_ms: float
    p90_ms: float | None
    p99_ms: float | None
    mean_ms: float
    max_ms: float
    calls: int
    p999_ms: float | None = None
    p95_ms: float | None = None


def time_calls(
    call: Callable[[], object],
    *,
    seconds: float | None = None,
    calls: int | None = None,
    warmup: int = 3,
) -> Timing:
    """Time `call` one at a time for `seconds` or for `calls`, whichever is given.

    `warmup` calls come first and are not counted. At least one call is timed.

    Raises:
        UsageError: neither or both limits were given, or one is not positive.
    """
    if (seconds is None) == (calls is None):
        raise UsageError("give either seconds or calls")
    if not (seconds or calls or 0) > 0:
        raise UsageError(f"a measurement of {seconds if calls is None else calls} has no result")
    for _ in range(warmup):
        call()
    return summarize(_durations_ns(call, seconds, calls or _MAX_CALLS))


def endless(step: Callable[[], object], reset: Callable[[], object]) -> Callable[[], object]:
    """`step` of a stream, which starts anew where a state is at the end of its range."""

    def call() -> object:
        try:
            return step()
        except StateError:
            reset()
            return step()

    return call


def summarize(durations_ns: array[int]) -> Timing:
    """Percentiles of durations in nanoseconds."""
    taken = np.asarray(durations_ns, np.float64) / 1e6
    earned = {
        level: float(np.percentile(taken, level)) if taken.size >= needed else None
        for level, needed in CALLS_NEEDED.items()
    }
    return Timing(
        p50_ms=float(np.median(taken)),
        p90_ms=earned[90.0],
        p99_ms=earned[99.0],
        mean_ms=float(taken.mean()),
        max_ms=float(taken.max()),
        calls=int(taken.size),
        p999_ms=earned[99.9],
        p95_ms=earned[95.0],
    )


def _durations_ns(call: Callable[[], object], seconds: float | None, limit: int) -> array[int]:
    clock = time.perf_counter_ns
    taken = array("q")
    stop = clock() + int(seconds * 1e9) if seconds is not None else None
    while True:
        start = clock()
        call()
        end = clock()
        taken.append(end - start)
        if len(taken) >= limit or (stop is not None and end >= stop):
            return taken
