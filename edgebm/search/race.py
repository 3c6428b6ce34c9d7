"""Measure candidates in turns, so that a slow minute of the machine is shared by all.

A runtime's worker threads spin for a while after a call and slow whoever runs next by up to
2.5 times. So every turn begins with a pause and a few calls that are not counted, and what
is compared is the median over turns of the median within a turn.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from numpy.typing import NDArray

from edgebm.errors import BackendFailed, EdgebmError, ResourceError
from edgebm.runtime.bench import CALLS_NEEDED
from edgebm.search.candidates import Candidate
from edgebm.search.deadline import Deadline
from edgebm.search.records import Records
from edgebm.search.runner import Runner

TURNS = 12
PAUSE_S = 0.03
_TURN_S = 0.15
_FALL_BEHIND = 1.3
_DIGITS = 6  # of milliseconds that are kept: the clock has no more
_OPEN_BYTES = 2 << 30  # artifacts kept open at once; larger sets are opened anew each turn
P99_CALLS = CALLS_NEEDED[99.0]
_LENGTHS = {"turn": (_TURN_S, 500), "p99 turn": (2 * _TURN_S, 100)}  # seconds, and calls at most


@dataclass(slots=True)
class Measurement:
    """What was timed of one candidate. `turns_ms` holds one median a turn."""

    turns_ms: list[float] = field(default_factory=list)
    calls_ms: list[float] = field(default_factory=list)
    dropped: str = ""
    failed: str = ""

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


class Race:
    """Candidates on the same sample, timed in turns until each has 12 or time is over.

    Turns that `records` knows are taken from there, with the time that they took: a race that
    was cut off goes on as if it had not been, and one that ended ends at the same turn.
    """

    def __init__(
        self,
        candidates: Sequence[Candidate],
        records: Records,
        failed: Mapping[str, str],
        deadline: Deadline | None = None,
        kind: str = "turn",
    ) -> None:
        """`failed` holds what is known not to run, by `Candidate.answers_id`, and why.

        `deadline` is that of the next call; it may be set anew. Turns of another `kind` are
        measured anew.
        """
        self.candidates, self.records = list(candidates), records
        self.results = {
            c.id: Measurement(failed=failed.get(c.answers_id, "")) for c in self.candidates
        }
        self.deadline = deadline or Deadline()
        self._spent_s = 0.0
        self._kind = kind
        self._p99_turns: dict[str, int] = {}
        total = sum(2 * c.artifact.size_bytes for c in self.candidates)
        self._keep_open = total <= _OPEN_BYTES
        self._open: dict[str, Runner] = {}

    def run(
        self, measure_s: float, progress: Callable[[int, int], None]
    ) -> dict[str, Measurement]:
        """Take turns. After two, whoever is 1.3 times behind the fastest is dropped.

        Raises:
            OutOfTime: the time of the whole run is over; `results` has what was measured.
        """
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

    def join(self, other: Race, after: Candidate) -> None:
        """Take over the candidates of a later race and its times; new ones follow `after`."""
        new = [c for c in other.candidates if c.id not in self.results]
        place = 1 + [c.id for c in self.candidates].index(after.id)
        self.candidates[place:place] = new
        self.results |= {key: found for key, found in other.results.items() if not found.dropped}
        self.results |= {c.id: other.results[c.id] for c in new}

    def earn_p99(
        self, ids: Sequence[str], measure_s: float, progress: Callable[[int, int], None]
    ) -> None:
        """More turns for a few candidates until a p99 is earned; none if time forbids it.

        Raises:
            OutOfTime: as `run`.
        """
        chosen = [c for c in self.candidates if c.id in set(ids)]
        need = sum((self.results[c.id].p50_ms or 0.0) / 1e3 * P99_CALLS for c in chosen)
        if need > measure_s:
            return
        end = self._spent_s + measure_s
        try:
            while self._spent_s < end and any(
                len(self.results[c.id].calls_ms) < P99_CALLS for c in chosen
            ):
                for candidate in chosen:
                    turn = self._p99_turns.get(candidate.id, 0)
                    self._turn("p99 turn", candidate, turn)
                    self._p99_turns[candidate.id] = turn + 1
                progress(min(len(self.results[c.id].calls_ms) for c in chosen), P99_CALLS)
            progress(P99_CALLS, P99_CALLS)
        finally:
            self._close_all()

    def _round(self, turn: int) -> None:
        for candidate in self.candidates:
            result = self.results[candidate.id]
            if result.dropped or result.failed:
                continue
            try:
                times = self._turn(self._kind, candidate, turn)
            except EdgebmError as error:
                result.failed = str(error)
                continue
            result.turns_ms.append(statistics.median(times))

    def _turn(self, kind: str, candidate: Candidate, turn: int) -> list[float]:
        """Milliseconds of each call of one turn, measured now or before.

        Raises:
            EdgebmError: the candidate does not run.
            OutOfTime: it was not measured before, and there is no time to do it now.
        """
        found = self.records.find(kind, candidate, turn=turn)
        if found is None:
            self.deadline.check()
            found = self._measure(kind, candidate, turn)
        if "failed" in found:
            raise BackendFailed(found["failed"])
        self._spent_s += found["seconds"]
        times: list[float] = found["calls_ms"]
        self.results[candidate.id].calls_ms.extend(times)
        return times

    def _measure(self, kind: str, candidate: Candidate, turn: int) -> dict[str, Any]:
        start = time.perf_counter()
        found: dict[str, Any]
        try:
            times = self._time(candidate, *_LENGTHS.get(kind, _LENGTHS["turn"]))
        except ResourceError:
            raise  # another day there may be more memory
        except EdgebmError as error:
            found = {"failed": str(error)}
        else:
            found = {"calls_ms": times, "seconds": time.perf_counter() - start}
        self.records.keep(kind, candidate, found, turn=turn)
        return found

    def _time(self, candidate: Candidate, seconds: float, at_most: int) -> list[float]:
        runner = self._open.get(candidate.id) or Runner(candidate, self.records.face)
        if self._keep_open:
            self._open[candidate.id] = runner
        try:
            times = time_calls(runner, self.records.feeds, seconds, at_most)
        finally:
            if not self._keep_open:
                runner.close()
        return [round(each, _DIGITS) for each in times]

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
        promises = {c.id for c in self.candidates if c.artifact.promise}
        runners = {key: turns for key, turns in alive.items() if key not in promises} or alive
        pace = min(map(statistics.median, runners.values()))
        # The float model stays in to the end: it is what everything is compared with.
        baselines = {c.id for c in self.candidates if c.is_float_baseline}
        kept = min((key for key in alive if key in baselines), key=best.__getitem__, default="")
        for key, value in best.items():
            if value > _FALL_BEHIND * pace and key != kept:
                turns = len(self.results[key].turns_ms)
                self.results[
                    key
                ].dropped = f"{value / pace:.2f} times the fastest after {turns} turns"
                self._close(key)

    def _close(self, key: str) -> None:
        runner = self._open.pop(key, None)
        if runner is not None:
            runner.close()

    def _close_all(self) -> None:
        for key in list(self._open):
            self._close(key)


def turn_seconds(call_s: float) -> float:
    """About how long one turn of a candidate takes whose call takes `call_s` seconds."""
    return PAUSE_S + 3 * call_s + max(_TURN_S, 5 * call_s)


def calls_in_turn(call_s: float) -> float:
    """About how many calls of `call_s` seconds are timed in a turn."""
    return min(500.0, max(5.0, _TURN_S / max(call_s, 1e-6)))


def time_calls(
    runner: Runner, feeds: Mapping[str, NDArray[Any]], seconds: float, at_most: int
) -> list[float]:
    """Milliseconds of each call, after a pause and three calls that are not counted."""
    request = runner.bound(feeds)
    time.sleep(PAUSE_S)
    for _ in range(3):
        request.infer()
    times: list[float] = []
    clock, end = time.perf_counter, time.perf_counter() + seconds
    while len(times) < 5 or (clock() < end and len(times) < at_most):
        start = clock()
        request.infer()
        times.append((clock() - start) * 1e3)
    return times
