"""The node: answers the frames of one camera with a bundle, in a process of its own.

    python node.py signs.edgebm
    python node.py signs.edgebm --autostart   # configures and activates itself

Without --autostart it waits to be asked (`lifecycle.py`): configure loads the bundle, activate
listens to the camera. Every frame of the camera gets a report: the answer, or what became of it.
Ends with 0 on SIGTERM, Ctrl-C and `shutdown`; with --autostart with the error's exit code where
the bundle is refused.
"""

from __future__ import annotations

import argparse
import json
import queue
import threading
import time
from pathlib import Path
from typing import Any

import zenoh
from bus import DIAGNOSTICS, LEDGER, LIFECYCLE, BusError, Presence, Stop, add_ports, open_bus
from inference import Inference, Settings
from lifecycle import IllegalTransition, answer, target

import edgebm

# Whoever missed the last reports can still ask for them.
LINGER_S = 0.5


class Node:
    """The lifecycle of an `Inference`: transitions come as queries, one after the other."""

    def __init__(self, session: zenoh.Session, ident: int, settings: Settings) -> None:
        self.ident, self.state, self.failed = ident, "unconfigured", ""
        self._session, self._stop, self._over = session, Stop(), threading.Event()
        self._presence = Presence(session, "node", ident)
        self._inference = Inference(session, ident, settings)
        self._asked: queue.SimpleQueue[zenoh.Query] = queue.SimpleQueue()
        self._diagnostics = session.declare_publisher(
            DIAGNOSTICS, congestion_control=zenoh.CongestionControl.DROP
        )

    def run(self, stop: Stop, *, autostart: bool) -> int:
        """Serve until `shutdown` or `stop`; the exit code."""
        self._stop = stop
        self._presence.say(self.state)
        queryables = [
            self._session.declare_queryable(f"{LIFECYCLE}/*", self._note),
            self._session.declare_queryable(f"{LEDGER}/{self.ident}", self._read_out),
        ]
        teller = threading.Thread(target=self._tell, name="diagnostics", daemon=True)
        teller.start()
        code = 0
        for verb in ("configure", "activate") if autostart else ():
            told = self.change(verb)
            code = code or int(told["exit_code"])
        if code:
            stop.set()
        while self.state != "finalized" and not stop.wait(1.0):
            self._serve()
        if self.state != "finalized":
            self.change("shutdown")
        self._over.set()
        teller.join()
        time.sleep(LINGER_S)
        self._serve()  # whoever asked meanwhile is told that it is over
        for queryable in queryables:
            queryable.undeclare()
        return code

    def change(self, verb: str) -> dict[str, Any]:
        """Make a transition; the answer. A refusal leaves the state, and nothing half done."""
        try:
            after = target(self.state, verb)
            if verb == "configure":
                self._inference.load()
            elif verb == "activate":
                self._inference.start()
            elif verb == "deactivate":
                self._inference.stop()
            elif verb == "cleanup":
                self._inference.unload()
            else:
                self._inference.stop()
                self._inference.unload()
        except IllegalTransition as error:
            return answer(self.state, code="illegal_transition", message=str(error), exit_code=2)
        except edgebm.EdgebmError as error:
            self.failed = f"{error.code}: {error}"
            print(f"node {self.ident}: cannot {verb}: {self.failed}\n{error.hint}", flush=True)
            told = {"code": error.code, "message": str(error), "hint": error.hint}
            return answer(self.state, **told, exit_code=error.exit_code)
        self.state, self.failed = after, ""
        self._presence.say(after)
        print(f"node {self.ident}: {verb}, now {after}", flush=True)
        self._publish()
        return answer(after, report=self._inference.describe() if verb == "configure" else None)

    def _note(self, query: zenoh.Query) -> None:
        """On a thread of the bus: the state at once, the rest in turn on the main thread."""
        verb = str(query.key_expr).removeprefix(f"{LIFECYCLE}/")
        if verb == "state":
            self._reply(query, answer(self.state))
        else:
            self._asked.put(query)
            self._stop.wake()

    def _serve(self) -> None:
        while not self._asked.empty():
            query = self._asked.get()
            verb = str(query.key_expr).removeprefix(f"{LIFECYCLE}/")
            self._reply(query, self.change(verb))

    @staticmethod
    def _reply(query: zenoh.Query, told: dict[str, Any]) -> None:
        with query:
            query.reply(query.key_expr, json.dumps(told))

    def _read_out(self, query: zenoh.Query) -> None:
        """`?first=K;end=L` gives the headers of these reports, one after the other."""
        with query:
            try:
                first, end = (int(query.parameters.get(name) or "") for name in ("first", "end"))
            except ValueError:
                query.reply_err("first and end are needed, numbers of reports")
                return
            query.reply(query.key_expr, self._inference.ledger.since(first, end))

    def _tell(self) -> None:
        while not self._over.wait(1.0):
            self._publish()

    def _publish(self) -> None:
        told = self._inference.diagnose(self.state)
        told |= {"node": self.ident, "state": self.state, "stamp_ns": time.monotonic_ns()}
        if self.failed:
            told["level"] = "ERROR"
            told["reasons"] = [f"the last transition failed: {self.failed}", *told["reasons"]]
        self._diagnostics.put(json.dumps(told))


def main() -> int:
    """Prepare the process, open the bus, serve."""
    ident = time.monotonic_ns()
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("bundle", type=Path)
    parser.add_argument("--target", default="auto", help="target, runtime or target/runtime")
    parser.add_argument("--threads", type=int)
    parser.add_argument("--trust", type=Path, help="public key that must have signed the bundle")
    parser.add_argument("--trial-s", type=float, default=20, help="0: no trial in a process first")
    parser.add_argument("--depth", type=int, default=2, help="frames that may wait")
    parser.add_argument("--deadline-ms", type=float, help="older answers are marked as late")
    parser.add_argument("--stale-s", type=float, default=1, help="no frame for so long is STALE")
    parser.add_argument("--slow", type=float, default=0, help="ms of work for each answer")
    parser.add_argument("--autostart", action="store_true")
    parser.add_argument("--priority", type=int, help="1 to 99 under SCHED_FIFO")
    parser.add_argument("--cpus", type=int, nargs="+", help="cores to run on")
    add_ports(parser)
    options = parser.parse_args()
    if options.slow < 0 or options.trial_s < 0 or options.stale_s <= 0 or options.depth < 1:
        parser.error("--slow and --trial-s must not be below 0, --stale-s and --depth above 0")
    stop = Stop().on_signals()
    names = {f: getattr(options, f) for f in Settings.__dataclass_fields__}
    try:
        prepared = edgebm.realtime.prepare(options.cpus, options.priority, lock_memory=True)
        session = open_bus("node", options.ports)
    except (edgebm.EdgebmError, BusError) as error:
        print(error)
        return 2 if isinstance(error, edgebm.EdgebmError) else 5
    with prepared, session:
        print(f"node {ident}:\n{prepared}", flush=True)
        node = Node(session, ident, Settings(**names))
        return node.run(stop, autostart=options.autostart)


if __name__ == "__main__":
    raise SystemExit(main())
