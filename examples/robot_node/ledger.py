"""The node's account of frames: every one gets a verdict, and the verdicts come in their order."""

from __future__ import annotations

import threading
import time
from collections import Counter, deque
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

from wire import Report, Verdict

from edgebm.runtime.frames import FrameResult

# Reports that can be asked for again: two minutes of 30 frames a second.
KEPT = 4096
# Sources whose next frame is known.
SOURCES = 8


@dataclass(eq=False)
class _Entry:
    """Frames that came or did not come: their report, and the loop's number while it is open."""

    report: Report
    number: int | None = None


class Ledger:
    """Writes the reports of one node. `send` gets each, in order.

    Frames are told by `came`, marks by `marked`, results of the frame loop by `settle`. A frame
    that the loop gives no result for was dropped: the results after it say so.
    """

    def __init__(self, node: int, send: Callable[[Report], object]) -> None:
        self._node, self._send = node, send
        self._lock = threading.Lock()
        self._waiting: deque[_Entry] = deque()
        self._next: dict[int, int] = {}
        self._fresh: set[int] = set()
        self._open = False
        self._kept: deque[bytes] = deque(maxlen=KEPT)
        self.number = 0
        self.counts: Counter[str] = Counter()

    def start(self) -> None:
        """Frames are looked at from now on, by a loop that counts from 0."""
        with self._lock:
            self._open = True

    def came(self, source: int, seq: int, verdict: Report | int, **times: int) -> bool:
        """A frame is here: its number in the loop, or a report that refuses it.

        Returns:
            Whether it is to be answered: one that was here before has its verdict already, and
            one that comes when nobody looks any more will be told of as such.
        """
        with self._lock:
            if not self._open:
                return False
            if seq < self._next.get(source, 0):
                self.counts["repeated"] += 1
                return False
            self._gap(source, seq)
            self._next[source] = seq + 1
            if isinstance(verdict, Report):
                self._waiting.append(_Entry(verdict))
            else:
                report = self._report(source, seq, 1, Verdict.DROPPED, **times)
                self._waiting.append(_Entry(report, verdict))
            self._flush()
            return True

    def marked(self, source: int, sent: int) -> None:
        """The camera has sent so many: what has not come by now will not come any more."""
        with self._lock:
            if self._open and sent > self._next.get(source, 0):
                self._gap(source, sent)
                self._next[source] = sent
                self._flush()

    def refused(self, source: int, seq: int, code: str, message: str) -> Report:
        """A report for `came`."""
        meta = {"code": code, "message": message}
        return self._report(source, seq, 1, Verdict.REFUSED, meta=meta)

    def settle(self, result: FrameResult) -> None:
        """The loop has this result; frames before it that have none were dropped."""
        if result.error is None:
            what: dict[str, Any] = {"verdict": Verdict.ANSWERED, "outputs": result.outputs}
        else:
            meta = {"code": result.error.code, "message": str(result.error)}
            what = {"verdict": Verdict.FAILED, "meta": meta}
        with self._lock:
            for entry in self._waiting:
                if entry.number is None:
                    continue
                if entry.number < result.seq:
                    entry.number = None
                elif entry.number == result.seq:
                    entry.report = replace(entry.report, late=result.late, **what)
                    entry.number = None
                    break
            self._flush()

    def stop(self) -> None:
        """The loop is closed: what has no result was dropped, and nobody looks any more."""
        with self._lock:
            self._open = False
            for entry in self._waiting:
                entry.number = None
            self._flush()
            for source, after in self._next.items():
                if source in self._fresh:
                    self._emit(self._report(source, after, 0, Verdict.STOPPED))
            self._fresh.clear()

    def since(self, first: int, end: int) -> bytes:
        """The headers of reports `first` to `end - 1`, as far as they are kept."""
        with self._lock:
            oldest = self.number - len(self._kept)
            some = list(self._kept)[max(0, first - oldest) : max(0, end - oldest)]
        return b"".join(some)

    def _gap(self, source: int, until: int) -> None:
        """Frames before `until` that never came."""
        first = self._next.pop(source, 0)  # the source that was heard last stands last
        if until > first:
            verdict = Verdict.MISSED if source in self._fresh else Verdict.UNSEEN
            self._waiting.append(_Entry(self._report(source, first, until - first, verdict)))
        self._fresh.add(source)
        while len(self._next) >= SOURCES:
            del self._next[next(iter(self._next))]

    def _report(self, source: int, first: int, count: int, what: Verdict, **more: Any) -> Report:
        return Report(self._node, 0, source, first, count, what, **more)

    def _flush(self) -> None:
        """Say what is known, up to the first frame that the loop still has."""
        run: Report | None = None
        while self._waiting and self._waiting[0].number is None:
            report = self._waiting.popleft().report
            if run is not None and _continues(run, report):
                run = replace(run, count=run.count + report.count, stamp_ns=0, in_ns=0)
                continue
            if run is not None:
                self._emit(run)
            run = report
        if run is not None:
            self._emit(run)

    def _emit(self, report: Report) -> None:
        # Under the lock: the order of numbers is the order on the bus.
        report = replace(report, number=self.number, out_ns=time.monotonic_ns())
        self.number += 1
        self.counts[report.verdict.name.lower()] += report.count
        self._kept.append(report.pack(short=True))
        self._send(report)


def _continues(run: Report, report: Report) -> bool:
    """Whether both are drops without anything between: one report will do."""
    dropped = run.verdict == report.verdict == Verdict.DROPPED
    return dropped and (run.source, run.first + run.count) == (report.source, report.first)
