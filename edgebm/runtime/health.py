"""The state of a session in one word, with the reasons."""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from edgebm.errors import UsageError
from edgebm.runtime.bench import Timing
from edgebm.runtime.calls import RECENT_S, CallLog, Tally

if TYPE_CHECKING:
    from edgebm.runtime.board import Board
    from edgebm.runtime.frames import FrameCounts

State = Literal["OK", "WARN", "ERROR", "STALE"]
# Of the calls of the last minute: more that are late, or whose inputs are odd, are a warning.
SHARE = 0.01
# Of the frames of the last minute: what openpilot takes for a model that lags.
DROPPED_SHARE = 0.2
# Looks that are closer together than this are not kept.
_LOOK_EVERY_S = 1.0


@dataclass(frozen=True, slots=True)
class Health:
    """How a session is, at one moment.

    Attributes:
        state: "ERROR": it is of no use now, "STALE": nobody called it for longer than you
            allow, "WARN": it answers, but something is wrong, "OK". The first that is true.
        reasons: a sentence for everything that is wrong; empty if nothing is.
        calls: calls since the session was loaded, those that failed included.
        failures: calls that raised, by the code of their error.
        late: calls over their deadline: answered too late, stopped or not started.
        doubtful: answers with doubts.
        idle_s: seconds since the newest call, or since loading if there was none.
        latency: of the newest 1024 answered calls; None before the first.
        pushed: frames that went into frame loops which are open.
        dropped: frames of these that were dropped.
        board: temperatures, clocks, throttling, power.
    """

    state: State
    reasons: tuple[str, ...]
    calls: int
    failures: dict[str, int]
    late: int
    doubtful: int
    idle_s: float
    latency: Timing | None
    pushed: int
    dropped: int
    board: Board

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON types."""
        plain = asdict(self)
        return plain | {"reasons": list(self.reasons), "board": self.board.to_dict()}


@dataclass(frozen=True, slots=True)
class _Look:
    """What only a comparison with a later look can tell."""

    at_s: float
    calls: int
    pushed: int
    dropped: int
    board: Board


class Monitor:
    """Looks at one session and its `calls`. `root` is where `sys` and `proc` are."""

    def __init__(self, root: Path = Path("/")) -> None:
        self.calls = CallLog()
        self._root = root
        self._looks: deque[_Look] = deque()
        self._lock = threading.Lock()
        # When the session was called last, or loaded.
        self._newest_s = time.perf_counter()

    def begin(self) -> None:
        """Forget all calls and looks so far."""
        self.calls.clear()
        with self._lock:
            self._looks.clear()
            self._newest_s = time.perf_counter()

    def look(
        self,
        report: Mapping[str, Any],
        frames: Sequence[FrameCounts],
        fault: str,
        stale_after_s: float | None,
    ) -> Health:
        """Judge the session.

        Args:
            report: what really runs.
            frames: those of its frame loops.
            fault: why the session is of no use any more, or "".
            stale_after_s: seconds without a call after which it is stale; None is for ever.

        Raises:
            UsageError: `stale_after_s` is no time.
        """
        from edgebm.runtime.board import read_board

        _check_time(stale_after_s)
        tally, board, now_s = self.calls.tally(), read_board(self._root), time.perf_counter()
        pushed, dropped = sum(c.pushed for c in frames), sum(c.dropped for c in frames)
        look = _Look(now_s, tally.total.calls, pushed, dropped, board)
        before, idle_s = self._compare(look, tally)
        errors = [fault] if fault else _broken(tally)
        stale = _stale(tally, idle_s, stale_after_s)
        warnings = [*_fallback(report), *_calls(tally), *_frames(before, look)]
        warnings += _board(before.board, board)
        return Health(
            state="ERROR" if errors else "STALE" if stale else "WARN" if warnings else "OK",
            reasons=(*errors, *stale, *warnings),
            calls=tally.total.calls,
            failures=dict(tally.codes),
            late=tally.total.late,
            doubtful=tally.total.doubtful,
            idle_s=idle_s,
            latency=tally.latency,
            pushed=pushed,
            dropped=dropped,
            board=board,
        )

    def _compare(self, look: _Look, tally: Tally) -> tuple[_Look, float]:
        """The look a minute ago, or the first there is, and how long nobody has called."""
        with self._lock:
            looks = self._looks
            if tally.end_s is not None:
                self._newest_s = max(self._newest_s, tally.end_s)
            # Not every call is timed, but all are counted.
            if looks and look.calls > looks[-1].calls:
                self._newest_s = max(self._newest_s, looks[-1].at_s)
            if not looks or look.at_s - looks[-1].at_s >= _LOOK_EVERY_S:
                looks.append(look)
            while len(looks) > 1 and look.at_s - looks[1].at_s >= RECENT_S:
                looks.popleft()
            return looks[0], look.at_s - self._newest_s


def _check_time(stale_after_s: object) -> None:
    number = isinstance(stale_after_s, (int, float)) and not isinstance(stale_after_s, bool)
    # A NaN is not above 0, either.
    if stale_after_s is not None and not (number and stale_after_s > 0):  # type: ignore[operator]
        raise UsageError(
            f"stale_after_s is {stale_after_s!r}, a number of seconds above 0 or None is expected"
        )


def _fallback(report: Mapping[str, Any]) -> list[str]:
    return [f"a fallback is running: {report['why']}"] if report.get("degraded") else []


def _broken(tally: Tally) -> list[str]:
    if not tally.is_broken or tally.failure is None:
        return []
    return [f"the runtime failed in the last call: {tally.failure.message}"]


def _stale(tally: Tally, idle_s: float, limit_s: float | None) -> list[str]:
    if limit_s is None or idle_s <= limit_s:
        return []
    since = "it was loaded" if tally.total.calls == 0 else "the last call"
    return [f"{idle_s:.3g} s have passed since {since}; {limit_s:g} s are allowed"]


def _calls(tally: Tally) -> list[str]:
    lately, failure, found = tally.lately, tally.failure, []
    if lately.failed and failure is not None:
        found.append(
            f"{lately.failed} of {lately.calls} calls failed lately, the last one with "
            f"{failure.code}: {failure.message}"
        )
    for count, what in (
        (lately.late, "were over their deadline"),
        (lately.doubtful, "had odd values in their inputs"),
    ):
        if count > SHARE * lately.calls:
            found.append(f"{count} of {lately.calls} calls lately {what}")
    return found


def _frames(before: _Look, now: _Look) -> list[str]:
    pushed, dropped = now.pushed - before.pushed, now.dropped - before.dropped
    # The first look has only the totals, and a loop that is gone takes its frames along.
    if now is before or pushed < 0 or dropped < 0:
        pushed, dropped = now.pushed, now.dropped
    if dropped <= DROPPED_SHARE * pushed:
        return []
    return [f"{dropped} of {pushed} frames were dropped lately"]


def _board(before: Board, now: Board) -> list[str]:
    from edgebm.runtime.board import stopped_between, throttled_between

    return [*throttled_between(before, now), *now.hot, *stopped_between(before, now)]
