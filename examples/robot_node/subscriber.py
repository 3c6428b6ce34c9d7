"""A subscriber: takes the node's reports and accounts for every frame of the camera.

    python subscriber.py --json figures.json

It prints what happens: who comes, goes or dies, gaps, a stream that stands still and one that is
back, the node's diagnostics when they change. On SIGTERM, on Ctrl-C or after --seconds it prints
the account and ends with 0, or with 1 if a frame was lost without a report.
"""

from __future__ import annotations

import argparse
import json
import queue
import time
from collections import Counter, deque
from pathlib import Path
from typing import Any

import zenoh
from account import Account
from bus import (
    DIAGNOSTICS,
    LEDGER,
    MARK,
    REPORT,
    BusError,
    Presence,
    Stop,
    Watch,
    add_ports,
    open_bus,
)
from figures import lines, quantiles
from wire import REPORT_BYTES, Report, Verdict, unpack, unpack_report

# Quantiles are of so many newest answers.
RECENT = 100_000
# How long to wait for what is on its way when the end was asked for.
SETTLE_S = 0.3
GONE = {
    Verdict.MISSED: "were lost between camera and node",
    Verdict.UNSEEN: "were never seen by this node: it was not listening yet",
}


class Subscriber:
    """Everything that comes is put into one queue, and taken out by one thread."""

    def __init__(self, session: zenoh.Session, ident: int, stale_s: float, stop: Stop) -> None:
        self._session, self._ident, self._stale_s, self._stop = session, ident, stale_s, stop
        self.account = Account(ident)
        self._inbox: queue.SimpleQueue[tuple[str, int, bytes]] = queue.SimpleQueue()
        self._age_ms: deque[float] = deque(maxlen=RECENT)
        self._node_ms: deque[float] = deque(maxlen=RECENT)
        self._refusals: Counter[str] = Counter()
        self._seen: Counter[str] = Counter()
        self._node = 0
        self._level = ("", "")
        self._is_stale = True
        self._newest_ns: int | None = None
        self._diagnostics: dict[str, Any] = {}
        self.watch = Watch(session, ("subscriber", ident), self.say)
        keys = {"report": REPORT, "mark": MARK, "diagnostics": DIAGNOSTICS}
        for kind, key in keys.items():
            session.declare_subscriber(key, self._into(kind))

    def run(self, seconds: float) -> None:
        """Until the end was asked for, or for so long; 0 is for ever."""
        end_s = time.monotonic() + seconds if seconds else float("inf")
        while not self._stop.wait(0.1) and time.monotonic() < end_s:
            self._take_all()
            self._look()
        time.sleep(SETTLE_S)
        self._take_all()
        if self._diagnostics:
            self.account.behind(self._diagnostics["node"], self._diagnostics["reports"])
            self._fetch()

    def told(self) -> dict[str, Any]:
        """The account and all figures, as plain JSON."""
        active = any("active" in states for states in self.watch.here("node").values())
        names = ("late", "gaps", "node_restarts", "stale_times", "unreadable")
        return {
            "frames": self.account.totals(attended=active),
            "node_ms": quantiles(self._node_ms),
            "age_ms": quantiles(self._age_ms),
            **{name: self._seen[name] for name in names},
            "deaths": self.watch.deaths,
            "refusals": dict(self._refusals),
            "seconds": (time.monotonic_ns() - self._ident) / 1e9,
            "diagnostics": self._diagnostics,
        }

    def say(self, text: str, *more: str) -> None:
        """A line for people, with the seconds since the start."""
        now_s = (time.monotonic_ns() - self._ident) / 1e9
        rest = [f"{'':12}{line}" for line in more]
        print(f"{now_s:8.1f} s  {text}", *rest, sep="\n", flush=True)

    def _into(self, kind: str) -> Any:
        def put(sample: zenoh.Sample) -> None:
            self._inbox.put((kind, time.monotonic_ns(), sample.payload.to_bytes()))
            self._stop.wake()

        return put

    def _take_all(self) -> None:
        while not self._inbox.empty():
            kind, at_ns, data = self._inbox.get()
            try:
                if kind == "report":
                    self._take_report(unpack_report(data), at_ns)
                elif kind == "mark":
                    mark = unpack(data)
                    self.account.mark(mark.source, mark.seq)
                else:
                    self._take_diagnostics(json.loads(data))
            except (ValueError, KeyError) as error:
                self._seen["unreadable"] += 1
                self.say(f"a {kind} that cannot be read: {error}")
        self._fetch()

    def _take_report(self, report: Report, at_ns: int) -> None:
        if report.node != self._node:
            if self._node:
                self._seen["node_restarts"] += 1
                self.say(f"ANOTHER NODE answers: {report.node}, before it was {self._node}")
            self._node = report.node
        if self.account.report(report):
            self._seen["gaps"] += 1
            node, first, end = self.account.wanted[-1]
            self.say(f"GAP: reports {first} to {end - 1} of node {node} did not come")
        if report.verdict == Verdict.ANSWERED:
            self._newest_ns = at_ns
            self._age_ms.append((at_ns - report.stamp_ns) / 1e6)
            self._node_ms.append((report.out_ns - report.in_ns) / 1e6)
            self._seen["late"] += report.late
        elif report.verdict in GONE:
            last = report.first + report.count - 1
            self.say(f"frames {report.first} to {last} {GONE[report.verdict]}")
        elif report.verdict in {Verdict.FAILED, Verdict.REFUSED}:
            self._tell_refusal(report)

    def _tell_refusal(self, report: Report) -> None:
        code = report.meta.get("code", "")
        self._refusals[code] += 1
        times = self._refusals[code]
        if str(times).strip("0") == "1":  # the first, the tenth, the hundredth
            name = report.verdict.name.lower()
            again = f" (the {times}th of its kind)" if times > 1 else ""
            self.say(f"frame {report.first} {name}: {report.meta.get('message')}{again}")

    def _take_diagnostics(self, told: dict[str, Any]) -> None:
        self._diagnostics = told
        now = (told["state"], told["level"])
        if now != self._level:
            self._level = now
            self.say(f"node is {now[0]}, health {now[1]}", *told["reasons"])

    def _look(self) -> None:
        """Say once that nothing comes any more, and once that it does again."""
        if self._newest_ns is None:
            return
        idle_s = (time.monotonic_ns() - self._newest_ns) / 1e9
        stale = idle_s > self._stale_s
        if stale and not self._is_stale:
            self._seen["stale_times"] += 1
            nodes = [s for states in self.watch.here("node").values() for s in states]
            cameras = len(self.watch.here("camera"))
            self.say(
                f"STALE: no answer for {idle_s:.1f} s; {cameras} cameras, "
                f"nodes: {', '.join(nodes) or 'none'}"
            )
        elif self._is_stale and not stale:
            self.say("answers come")
        self._is_stale = stale

    def _fetch(self) -> None:
        """Ask nodes for the reports that did not come; what a node has no more stays open."""
        wanted, self.account.wanted = self.account.wanted, []
        for node, first, end in wanted:
            got = 0
            for reply in self._session.get(f"{LEDGER}/{node}?first={first};end={end}", timeout=2):
                data = reply.ok.payload.to_bytes() if reply.ok is not None else b""
                for at in range(0, len(data), REPORT_BYTES):
                    self.account.report(unpack_report(data[at : at + REPORT_BYTES]), again=True)
                    got += 1
            self.say(f"{got} of {end - first} reports of node {node} came when asked for")


def main() -> int:
    """Open, take, tell."""
    ident = time.monotonic_ns()
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seconds", type=float, default=0, help="0: until it is told to end")
    parser.add_argument("--stale-s", type=float, default=1, help="no answer for so long is STALE")
    parser.add_argument("--json", type=Path, help="also write the figures here")
    add_ports(parser)
    options = parser.parse_args()
    if options.seconds < 0 or options.stale_s <= 0:
        parser.error("--seconds must not be below 0, --stale-s must be above")
    stop = Stop().on_signals()
    try:
        session = open_bus("subscriber", options.ports)
    except BusError as error:
        print(error)
        return 5
    with session:
        presence = Presence(session, "subscriber", ident)
        presence.say("active")
        subscriber = Subscriber(session, ident, options.stale_s, stop)
        subscriber.run(options.seconds)
        told = subscriber.told()
        presence.say("finalized")
    print("", *lines(told), sep="\n", flush=True)
    if options.json:
        part = options.json.with_name(options.json.name + ".part")
        part.write_text(json.dumps(told, indent=2), encoding="utf-8")
        part.replace(options.json)
    return 1 if told["frames"]["lost_without_a_report"] else 0


if __name__ == "__main__":
    raise SystemExit(main())
