"""What became of the calls of a session, kept at next to no cost."""

from __future__ import annotations

import math
import threading
import time
from array import array
from collections import Counter, deque
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from operator import length_hint

from edgebm.errors import BackendError, DeadlineExceeded, EdgebmError
from edgebm.runtime.bench import Timing, summarize

# Enough for p99 (see `bench.CALLS_NEEDED`); 34 seconds of a camera.
RECENT_CALLS = 1024
RECENT_S = 60.0
# A session that is called every millisecond or more often has one of eight calls timed.
SKIPPED = 7
OFTEN_S = 1e-3 * (SKIPPED + 1)
Timed = tuple[int, float, float]
# What a range has left is known without taking from it, unlike that of `itertools.count`.
_ENDLESS = 2**62


@dataclass(frozen=True, slots=True)
class Failure:
    """What a call raised."""

    code: str
    message: str


@dataclass(frozen=True, slots=True)
class Counts:
    """How many calls; a call may be counted in several of these.

    Attributes:
        calls: all of them.
        failed: those that raised, but for those at their deadline.
        late: those over their deadline: answered too late, stopped or not started.
        doubtful: those that gave an answer with doubts.
    """

    calls: int
    failed: int
    late: int
    doubtful: int


@dataclass(frozen=True, slots=True)
class Tally:
    """The calls of a session at one moment.

    Attributes:
        total: of all calls so far.
        lately: of the last minute, or of the newest 1024 that were timed if that is less.
        codes: how many raised, by the code of their error.
        end_s: when the newest call that was timed ended, on the clock of `time.perf_counter`;
            None before the first.
        latency: of the newest calls that gave an answer and were timed.
        failure: the newest one that was not at its deadline.
        is_broken: the newest call of all raised, and the vendor runtime was at fault.
    """

    total: Counts
    lately: Counts
    codes: Mapping[str, int]
    end_s: float | None
    latency: Timing | None
    failure: Failure | None
    is_broken: bool


class CallLog:
    """Counts calls; any thread may add to it.

    A call that gave an answer takes `next(numbers)`, which no two threads can share, and one that
    was timed does `keep((number, began_s, end_s))`, in seconds of `time.perf_counter`; nothing is
    locked. `answered(began_s)` does both. On two cores at 2.6 GHz that takes 0.3 us, so a caller
    whose timed calls begin less than OFTEN_S after each other leaves the next `skipped` untimed:
    0.1 us a call on average.
    """

    def __init__(self) -> None:
        self._recent: deque[Timed] = deque(maxlen=RECENT_CALLS)
        self.numbers, self.keep = iter(range(1, _ENDLESS)), self._recent.append
        self.answered = _recorder(self.numbers, self.keep)
        self._lock = threading.Lock()
        self.clear()
        self.skipped = 0

    def clear(self) -> None:
        """Forget all calls so far, and begin to leave some untimed."""
        self.skipped = SKIPPED
        with self._lock:
            self._recent.clear()
            self._forgotten = self._taken()
            self._codes: Counter[str] = Counter()
            self._failed, self._stopped = _Events(), _Events()
            self._late, self._doubtful = _Events(), _Events()
            self._failure: Failure | None = None
            self._failed_s, self._is_broken = -math.inf, False

    def _taken(self) -> int:
        return _ENDLESS - 1 - length_hint(self.numbers)

    def failed(self, error: BaseException) -> None:
        """Count a call that raised. Only what is said about the error is kept."""
        code = error.code if isinstance(error, EdgebmError) else type(error).__name__
        by_deadline = isinstance(error, DeadlineExceeded)
        with self._lock:
            self._codes[code] += 1
            self._failed_s = (self._stopped if by_deadline else self._failed).add()
            self._is_broken = isinstance(error, BackendError)
            if not by_deadline:
                self._failure = Failure(code, str(error)[:300])

    def late(self) -> None:
        """Count an answer that came after its deadline; `answered` counts it, too."""
        with self._lock:
            self._late.add()

    def doubtful(self) -> None:
        """Count an answer with doubts; `answered` counts it, too."""
        with self._lock:
            self._doubtful.add()

    def tally(self) -> Tally:
        """All calls so far; takes half a millisecond."""
        # One step of the interpreter: no other thread appends meanwhile.
        recent = list(self._recent)
        is_full = len(recent) == RECENT_CALLS
        since_s = time.perf_counter() - RECENT_S
        if is_full:
            since_s = max(since_s, recent[0][2])
        with self._lock:
            newest_s = max((end_s for _, _, end_s in recent), default=-math.inf)
            end_s = max(newest_s, self._failed_s)
            taken = self._taken()
            first = recent[0][0] - 1 if is_full else self._forgotten
            first = max((number for number, _, end_s in recent if end_s < since_s), default=first)
            return Tally(
                total=self._counts(taken - self._forgotten, -math.inf),
                lately=self._counts(taken - first, since_s),
                codes=dict(self._codes),
                end_s=None if end_s == -math.inf else end_s,
                latency=_latency(recent),
                failure=self._failure,
                is_broken=self._is_broken and self._failed_s > newest_s,
            )

    def _counts(self, answered: int, since_s: float) -> Counts:
        failed, stopped = self._failed.after(since_s), self._stopped.after(since_s)
        return Counts(
            calls=answered + failed + stopped,
            failed=failed,
            late=stopped + self._late.after(since_s),
            doubtful=self._doubtful.after(since_s),
        )


class _Events:
    """How often something happened, and when it did lately."""

    def __init__(self) -> None:
        self._total = 0
        self._times_s: deque[float] = deque(maxlen=RECENT_CALLS)

    def add(self) -> float:
        """One more, at the time that is returned."""
        now_s = time.perf_counter()
        self._total += 1
        self._times_s.append(now_s)
        return now_s

    def after(self, since_s: float) -> int:
        """How many since then; all for minus infinity."""
        if since_s == -math.inf:
            return self._total
        return sum(when_s >= since_s for when_s in self._times_s)


def _recorder(numbers: Iterator[int], keep: Callable[[Timed], None]) -> Callable[[float], None]:
    clock = time.perf_counter

    def answered(began_s: float) -> None:
        keep((next(numbers), began_s, clock()))

    return answered


def _latency(recent: list[Timed]) -> Timing | None:
    if not recent:
        return None
    return summarize(array("q", [int((end_s - began_s) * 1e9) for _, began_s, end_s in recent]))
