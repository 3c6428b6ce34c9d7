"""What the node does while it is active: frames in, reports out, and how that is going."""

from __future__ import annotations

import threading
import time
from collections import Counter, deque
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import zenoh
from bus import FRAME, REPORT, Watch
from figures import quantiles
from ledger import Ledger
from wire import MARK, Message, Report, Verdict, WireError, unpack

import edgebm

RECENT = 1024
# How long a fault of the stream is told of after it was seen last.
TOLD_S = 5.0


@dataclass(frozen=True)
class Settings:
    """Options of the same name of `node.py`."""

    bundle: Path
    target: str
    threads: int | None
    trust: Path | None
    trial_s: float
    depth: int
    deadline_ms: float | None
    stale_s: float
    slow: float


class Inference:
    """A session and its frame loop. `load`, `start`, `stop` and `unload` are the transitions."""

    def __init__(self, bus: zenoh.Session, node: int, settings: Settings) -> None:
        self._bus, self._settings = bus, settings
        self._reports = bus.declare_publisher(
            REPORT, congestion_control=zenoh.CongestionControl.DROP, express=True
        )
        self.ledger = Ledger(node, self._send)
        self._session: Any = None
        self._loop: Any = None
        self._threads: list[threading.Thread] = []
        self._frames: Any = None
        self._pushed = 0
        self._source: int | None = None
        self._watch = Watch(bus, ("node", node), lambda line: print(f"node: {line}", flush=True))
        self._newest_s = time.monotonic()
        self._latency_ms: deque[float] = deque(maxlen=RECENT)
        self._faults: Counter[str] = Counter()
        self._told: dict[str, tuple[float, bool, str]] = {}

    def load(self) -> None:
        """Verify, try, compile, warm up and self-test the bundle.

        Raises:
            edgebm.EdgebmError: what is wrong with it, or with this device.
        """
        how = self._settings
        self._session = edgebm.load(
            how.bundle,
            how.target,
            how.threads,
            trust=None if how.trust is None else [how.trust],
            trial_s=how.trial_s or None,
        )
        edgebm.realtime.prepare()  # the objects that loading made are not looked at any more

    def start(self) -> None:
        """Listen to the camera."""
        how = self._settings
        loop = self._session.pipeline(how.depth, drop="oldest", deadline_ms=how.deadline_ms)
        self._loop, self._pushed, self._newest_s = loop, 0, time.monotonic()
        self.ledger.start()
        self._threads = [threading.Thread(target=self._deliver, name="reports", args=(loop,))]
        self._threads[0].start()
        # One subscriber for both, so that a mark never overtakes a frame.
        self._frames = self._bus.declare_subscriber("robot/camera/*", self._take)

    def stop(self) -> None:
        """Listen no more; what is on its way is answered, and whatever is left has its report."""
        if self._loop is None:
            return
        self._frames.undeclare()
        self._loop.close(drain=True)
        self._threads[0].join()
        self.ledger.stop()
        self._loop = self._frames = None

    def unload(self) -> None:
        """Give the bundle and its runtime back."""
        if self._session is not None:
            self._session.close()
            self._session = None

    def describe(self) -> dict[str, Any]:
        """What really runs."""
        report = self._session.report()
        runs = {name: report[name] for name in ("runtime", "precision", "threads")}
        return runs | {"inputs": [str(spec) for spec in self._session.inputs]}

    def diagnose(self, state: str) -> dict[str, Any]:
        """Level, reasons, counts and latency, as plain JSON."""
        level, reasons, calls = "OK", [], 0
        session, newest_s = self._session, self._newest_s
        if session is not None:
            # Whether the camera is silent is seen here; the session judges its own calls.
            health = session.health()
            level, calls = health.state, health.calls
            reasons += health.reasons
        idle_s = time.monotonic() - newest_s
        if state == "active" and idle_s > self._settings.stale_s:
            level = "ERROR" if level == "ERROR" else "STALE"
            camera = "a camera is there" if self._watch.here("camera") else "no camera is there"
            reasons.append(f"no frame for {idle_s:.3g} s; {camera}")
        for severe, text in self._lately():
            reasons.append(text)
            level = "ERROR" if severe else "WARN" if level == "OK" else level
        return {
            "level": level,
            "reasons": reasons,
            "calls": calls,
            "reports": self.ledger.number,
            "counts": dict(self.ledger.counts),
            "faults": dict(self._faults),
            "latency_ms": quantiles(list(self._latency_ms)),
        }

    def _take(self, sample: zenoh.Sample) -> None:
        """A frame or a mark, on a thread of the bus."""
        in_ns = time.monotonic_ns()
        try:
            message = unpack(sample.payload.to_bytes())
        except WireError as error:
            self._fault(f"refused_{error.code}", f"a message was refused: {error}")
            if error.message is not None:
                self._refuse(error.message, error.code, str(error))
            return
        if not self._is_ours(message.source):
            text = f"two cameras on {FRAME}: {self._source} is answered, {message.source} is not"
            self._fault("two_cameras", text, severe=True)
            if message.kind != MARK:
                self._refuse(message, "two_cameras", text)
        elif message.kind == MARK:
            before = self.ledger.counts["missed"]
            self.ledger.marked(message.source, message.seq)
            self._say_missed(before)
        else:
            self._newest_s = time.monotonic()
            self._push(message, in_ns)

    def _push(self, message: Message, in_ns: int) -> None:
        number, before = self._pushed, self.ledger.counts["missed"]
        times = {"stamp_ns": message.stamp_ns, "in_ns": in_ns}
        # The result may be there before `push` returns, so the ledger must know first.
        if not self.ledger.came(message.source, message.seq, number, **times):
            self._fault("repeated", f"frame {message.seq} of camera {message.source} came again")
            return
        self._say_missed(before)
        self._pushed += 1
        key, stamp_ns = (message.source, message.seq), message.stamp_ns
        try:
            self._loop.push(message.image[None], key=key, stamp_ns=stamp_ns)  # type: ignore[index]
        except (edgebm.Closed, AttributeError):
            # Either the node is being deactivated, or the loop has ended by itself. The ledger
            # says of this frame that it was dropped when it stops.
            self._fault("loop_ended", "the frame loop takes no more frames", severe=True)

    def _refuse(self, message: Message, code: str, text: str) -> None:
        report = self.ledger.refused(message.source, message.seq, code, text)
        self.ledger.came(message.source, message.seq, report)

    def _is_ours(self, source: int) -> bool:
        """One camera is answered, until it is gone; then the next one that sends."""
        if source != self._source and self._source not in self._watch.here("camera"):
            self._source = source
        return source == self._source

    def _deliver(self, loop: Any) -> None:
        for result in loop:
            if self._settings.slow:
                time.sleep(self._settings.slow / 1e3)
            self.ledger.settle(result)

    def _send(self, report: Report) -> None:
        if report.verdict == Verdict.ANSWERED:
            self._latency_ms.append((report.out_ns - report.in_ns) / 1e6)
        try:
            self._reports.put(report.pack())
        except zenoh.ZError as error:
            self._fault("unsent", f"a report could not be sent: {error}")

    def _say_missed(self, before: int) -> None:
        missed = self.ledger.counts["missed"] - before
        if missed:
            self._fault("missed", f"{missed} frames were lost between camera and node", missed)

    def _fault(self, name: str, text: str, count: int = 1, *, severe: bool = False) -> None:
        self._faults[name] += count
        self._told[name] = (time.monotonic(), severe, text)

    def _lately(self) -> list[tuple[bool, str]]:
        """Faults of the last seconds, the newest of each kind: whether it is severe, and what."""
        since_s = time.monotonic() - TOLD_S
        return [told[1:] for told in list(self._told.values()) if told[0] > since_s]
