"""Time contenders in turns, so that a slow minute of the machine is shared by all.

A runtime's worker threads spin for a while after a call and slow whoever runs next by up to
2.5 times. So every turn begins with a pause and a few calls that are not counted, and what
is compared is the median over turns of the median within a turn.
"""

from __future__ import annotations

import abc
import statistics
import time
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field

from edgebm.errors import EdgebmError
from edgebm.runtime.bench import CALLS_NEEDED

TURNS = 12
PAUSE_S = 0.03
TURN_S = 0.15
_FALL_BEHIND = 1.3
_DIGITS = 6  # of milliseconds that are kept: the clock has no more
OPEN_BYTES = 2 << 30  # artifacts kept open at once; larger sets are opened anew each turn
P99_CALLS = CALLS_NEEDED[99.0]
_LENGTH, _P99_LENGTH = (TURN_S, 500), (2 * TURN_S, 100)  # seconds, and calls at most


@dataclass(slots=True)
class Measurement:
    """What was timed of one contender. `turns_ms` holds one median a turn.

    `dropped`, `failed` and `untimed` say why it was not timed to the end, or not at all.
    """

    turns_ms: list[float] = field(default_factory=list)
    calls_ms: list[float] = field(default_factory=list)
    dropped: str = ""
    failed: str = ""
    untimed: str = ""

    @property
    def p50_ms(self) -> float | None:
        return statistics.median(self.turns_ms) if self.turns_ms else None

    @property
    def p99_ms(self) -> float | None:
        """The 99th percentile, or None when too few calls were made to know it."""
        if len(self.calls_ms) < P99_CALLS:
            return None
        ordered = sorted(self.calls_ms)
        return ordered[min(len(ordered) - 1, int(len(ordered) * 0.99))]


@dataclass(frozen=True, slots=True)
class Turn:
    """Milliseconds of each call of one turn, and the seconds that all of it took."""

    calls_ms: list[float]
    seconds: float


class Turns(abc.ABC):
    """Contenders on the same sample, timed in turns until each has 12 or time is over.

    `results` holds what was measured of each, by name.
    """

    def __init__(self, results: Mapping[str, Measurement]) -> None:
        """`results` has every contender in the order of their turns; some may have failed."""
        self.results = dict(results)
        self._spent_s = 0.0
        self._p99_turns: dict[str, int] = {}

    @abc.abstractmethod
    def _timed(self, name: str, turn: int, *, p99: bool) -> Turn:
        """One turn of `name`; an EdgebmError means that it does not run."""

    @abc.abstractmethod
    def _close(self, name: str) -> None:
        """Free what `name` holds, if it holds anything."""

    @abc.abstractmethod
    def _floats(self) -> Collection[str]:
        """Contenders that everything is compared with: the fastest of them is never dropped."""

    def _idle(self) -> Collection[str]:
        """Contenders that cannot be taken, and so set no pace."""
        return ()

    def run(
        self, measure_s: float, progress: Callable[[int, int], None]
    ) -> dict[str, Measurement]:
        """Take turns. After two, whoever is 1.3 times behind the fastest is dropped."""
        try:
            for turn in range(TURNS):
                if turn >= 2 and self._spent_s > measure_s:
                    break
                self._round(turn)
                if turn >= 1:
                    self._drop_stragglers()
                progress(turn + 1, TURNS)
            progress(TURNS, TURNS)
        finally:
            self._close_all()
        return self.results

    def earn_p99(
        self, names: Sequence[str], measure_s: float, progress: Callable[[int, int], None]
    ) -> None:
        """More turns for a few until each has earned a p99; none if time forbids it."""
        wanted = [name for name in self.results if name in set(names)]
        need = sum((self.results[name].p50_ms or 0.0) / 1e3 * P99_CALLS for name in wanted)
        if need > measure_s:
            return
        end = self._spent_s + measure_s
        try:
            while self._spent_s < end and any(
                len(self.results[name].calls_ms) < P99_CALLS for name in wanted
            ):
                for name in wanted:
                    turn = self._p99_turns.get(name, 0)
                    self._turn(name, turn, p99=True)
                    self._p99_turns[name] = turn + 1
                progress(min(len(self.results[name].calls_ms) for name in wanted), P99_CALLS)
            progress(P99_CALLS, P99_CALLS)
        finally:
            self._close_all()

    def _round(self, turn: int) -> None:
        for name, result in self.results.items():
            if result.dropped or result.failed:
                continue
            try:
                times = self._turn(name, turn, p99=False)
            except EdgebmError as error:
                result.failed = str(error)
                continue
            result.turns_ms.append(statistics.median(times))

    def _turn(self, name: str, turn: int, *, p99: bool) -> list[float]:
        taken = self._timed(name, turn, p99=p99)
        self._spent_s += taken.seconds
        self.results[name].calls_ms.extend(taken.calls_ms)
        return taken.calls_ms

    def _drop_stragglers(self) -> None:
        alive = {
            key: result.turns_ms
            for key, result in self.results.items()
            if result.turns_ms and not (result.dropped or result.failed)
        }
        if not alive:
            return
        # The best turn of each against the usual turn of the fastest: neither one disturbed turn
        # nor one lucky turn of another may throw a fast candidate out.
        best = {key: min(turns) for key, turns in alive.items()}
        # Nor may one that cannot be taken.
        idle = set(self._idle())
        runners = {key: turns for key, turns in alive.items() if key not in idle} or alive
        pace = min(map(statistics.median, runners.values()))
        # The float model stays in to the end: it is what everything is compared with.
        floats = set(self._floats())
        kept = min((key for key in alive if key in floats), key=best.__getitem__, default="")
        for key, value in best.items():
            if value > _FALL_BEHIND * pace and key != kept:
                turns = len(self.results[key].turns_ms)
                behind = f"{value / pace:.2f} times the fastest after {turns} turns"
                self.results[key].dropped = behind
                self._close(key)

    def _close_all(self) -> None:
        for name in self.results:
            self._close(name)


def turn_seconds(call_s: float) -> float:
    """About how long one turn of a contender takes whose call takes `call_s` seconds."""
    return PAUSE_S + 3 * call_s + max(TURN_S, 5 * call_s)


def calls_in_turn(call_s: float) -> float:
    """About how many calls of `call_s` seconds are timed in a turn."""
    return min(float(_LENGTH[1]), max(5.0, TURN_S / max(call_s, 1e-6)))


def timed_turn(opened: Callable[[], Callable[[], None]], *, p99: bool = False) -> Turn:
    """One turn of the call that `opened` gives; opening it is part of the turn's seconds."""
    start = time.perf_counter()
    calls = call_times(opened(), *(_P99_LENGTH if p99 else _LENGTH))
    return Turn([round(each, _DIGITS) for each in calls], time.perf_counter() - start)


def call_times(infer: Callable[[], None], seconds: float, at_most: int) -> list[float]:
    """Milliseconds of each call, after a pause and three calls that are not counted."""
    time.sleep(PAUSE_S)
    for _ in range(3):
        infer()
    times: list[float] = []
    clock, end = time.perf_counter, time.perf_counter() + seconds
    while len(times) < 5 or (clock() < end and len(times) < at_most):
        start = clock()
        infer()
        times.append((clock() - start) * 1e3)
    return times
