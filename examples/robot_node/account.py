"""The subscriber's account: which frames the camera sent, and what the node said of each."""

from __future__ import annotations

import time
from collections import Counter, deque
from dataclasses import dataclass, field
from typing import Any

from wire import Report, Verdict

# A frame that was sent longer ago and has no report is lost, if a node is active.
PATIENCE_S = 5.0


class Ranges:
    """A set of whole numbers, kept as few disjoint ranges in order."""

    def __init__(self) -> None:
        self.ranges: list[tuple[int, int]] = []

    def add(self, first: int, end: int) -> int:
        """Take `first` to `end - 1` in; how many of them are new."""
        if end <= first:
            return 0
        new, apart = end - first, []
        for a, b in self.ranges:
            if b < first or a > end:
                apart.append((a, b))
                continue
            new -= max(0, min(b, end) - max(a, first))
            # What touches becomes one; what was there before is not counted as new.
            first, end = min(a, first), max(b, end)
        self.ranges = sorted([*apart, (first, end)])
        return new

    def missing(self, first: int, end: int) -> int:
        """How many of `first` to `end - 1` are not in it."""
        inside = sum(max(0, min(b, end) - max(a, first)) for a, b in self.ranges)
        return max(0, end - first) - inside

    @property
    def end(self) -> int:
        """One more than the highest."""
        return self.ranges[-1][1] if self.ranges else 0


@dataclass
class Stream:
    """One camera: its frames from `begin` on, of which `settled` have a report."""

    begin: int
    sent: int = 0
    stopped: bool = False
    settled: Ranges = field(default_factory=Ranges)
    counts: Counter[str] = field(default_factory=Counter)
    # When it was known that so many were sent.
    marks: deque[tuple[float, int]] = field(default_factory=lambda: deque(maxlen=64))

    def known(self, sent: int) -> None:
        """The camera has sent so many."""
        if sent > self.sent:
            self.sent = sent
            self.marks.append((time.monotonic(), sent))

    def balance(self, *, attended: bool) -> dict[str, int]:
        """Every frame from `begin` on: what was said of it, or why nothing was."""
        reach = max(self.begin, self.settled.end)
        if attended:
            old = time.monotonic() - PATIENCE_S
            reach = max([reach, *(sent for at_s, sent in self.marks if at_s < old)])
        top = max(self.sent, reach)
        rest = self.settled.missing(reach, top)
        said = {verdict.name.lower(): 0 for verdict in Verdict if verdict != Verdict.STOPPED}
        return {
            "sent": max(0, top - self.begin),
            **said,
            **self.counts,
            "unattended": 0 if attended else rest,
            "under_way": rest if attended else 0,
            "lost_without_a_report": self.settled.missing(self.begin, reach),
        }


class Account:
    """All cameras and nodes since `start_ns`, when the subscriber started.

    A camera that started later is accounted for from its frame 0, one that was there before from
    the first frame that was heard of. `wanted` holds the reports that did not come, (node, first,
    end): they can be asked for.
    """

    def __init__(self, start_ns: int) -> None:
        self._start_ns = start_ns
        self.streams: dict[int, Stream] = {}
        self.wanted: list[tuple[int, int, int]] = []
        self._next: dict[int, int] = {}
        self.told_twice = self.recovered = 0

    def mark(self, source: int, sent: int) -> None:
        """The camera says how many frames it has sent."""
        self._stream(source, sent).known(sent)

    def report(self, report: Report, *, again: bool = False) -> bool:
        """Take a report; `again` if it had to be asked for.

        Returns:
            Whether reports before this one did not come; they are in `wanted` then.
        """
        gap = False
        if not again:
            newer = report.node > self._start_ns
            expected = self._next.get(report.node, 0 if newer else report.number)
            gap = report.number > expected
            if gap:
                self.wanted.append((report.node, expected, report.number))
            self._next[report.node] = max(expected, report.number + 1)
        end = report.first + report.count
        unseen = report.verdict == Verdict.UNSEEN
        stream = self._stream(report.source, end if unseen else report.first)
        if report.verdict == Verdict.STOPPED:
            stream.stopped = True
            return gap
        stream.stopped = False
        stream.known(end)
        first = max(stream.begin, report.first)
        new = stream.settled.add(first, end)
        stream.counts[report.verdict.name.lower()] += new
        if again:
            self.recovered += new
        # A new node says of all frames before its first one that it has not seen them.
        elif not unseen:
            self.told_twice += max(0, end - first) - new
        return gap

    def behind(self, node: int, reports: int) -> None:
        """The node says that it has made so many reports; what is missing at the end is wanted."""
        expected = self._next.get(node, reports if node <= self._start_ns else 0)
        if reports > expected:
            self.wanted.append((node, expected, reports))
            self._next[node] = reports

    def totals(self, *, attended: bool) -> dict[str, Any]:
        """The balance of all cameras together, and of each."""
        each = {str(k): s.balance(attended=attended) for k, s in self.streams.items()}
        total: Counter[str] = Counter()
        for one in each.values():
            total.update(one)
        return {
            **{key: total[key] for key in Stream(0).balance(attended=attended)},
            "told_twice": self.told_twice,
            "recovered": self.recovered,
            "cameras": each,
        }

    def _stream(self, source: int, heard: int) -> Stream:
        if source not in self.streams:
            self.streams[source] = Stream(0 if source > self._start_ns else heard)
        return self.streams[source]
