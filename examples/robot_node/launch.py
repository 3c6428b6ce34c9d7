"""Starts camera, node and subscriber, configures and activates the node, and ends them in order.

    python launch.py signs.edgebm --frames camera.npz --seconds 300 --json figures.json
    python launch.py signs.edgebm --frames camera.npz --kill node --after 5 --respawn

Ctrl-C and SIGTERM end camera, node and subscriber, one after the other. A process that dies is
not started again, unless with --respawn, and then five times at most. --kill ends one with
SIGKILL, to see what the others do. Ends with 0 if all did, and no frame was lost without a report.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import time
from pathlib import Path

import zenoh
from bus import ROLES, BusError, Stop, Watch, add_ports, open_bus
from lifecycle import ask

HERE = Path(__file__).parent
RESPAWNS = 5
# How long a process may take to end before it is killed.
GRACE_S = 20.0
ANSWER_S = 120.0


class Launch:
    """The three processes, by role."""

    def __init__(self, commands: dict[str, list[str]], bus: zenoh.Session, stop: Stop) -> None:
        self._commands, self._bus, self._stop = commands, bus, stop
        self._watch = Watch(bus, ("launch", 0), lambda _: None)
        self._running: dict[str, subprocess.Popen[bytes]] = {}
        self._starts = dict.fromkeys(ROLES, 0)
        self.code = 0

    def start(self, role: str) -> bool:
        """Start one and wait until it is there; a node is configured and activated, too.

        Returns:
            Whether it runs. If not, it has said why.
        """
        before = self._watch.here(role).keys()
        command = [sys.executable, str(HERE / f"{role}.py"), *self._commands[role]]
        # A session of its own: Ctrl-C comes here only, and the order of the end is kept.
        self._running[role] = subprocess.Popen(
            command, stdin=subprocess.DEVNULL, start_new_session=True
        )
        self._starts[role] += 1
        while self._watch.here(role).keys() <= before:
            if not self._is_there(role):
                return False
            self._stop.wait(0.05)
        if role != "node":
            return True
        for verb in ("configure", "activate"):
            told = ask(self._bus, verb, ANSWER_S, alive=lambda: self._is_there(role))
            if self._stop.asked:
                return False
            if told is None or not told["ok"]:
                what = told or {"code": "no answer", "message": "", "hint": "", "exit_code": 5}
                say(f"node cannot {verb}: {what['code']}: {what['message']}\n{what.get('hint')}")
                self.code = int(what["exit_code"])
                return False
        return True

    def watch(self, end_s: float, kill: tuple[str, float] | None, *, respawn: bool) -> None:
        """Until the end; whoever ends before is said, and started again if wanted."""
        killed = ""
        while time.monotonic() < end_s and not self._stop.wait(0.1):
            if kill and time.monotonic() >= kill[1]:
                killed, kill = kill[0], None
                say(f"killing {killed}")
                self._running[killed].kill()
                self._running[killed].wait()
            for role, process in list(self._running.items()):
                if process.poll() is None:
                    continue
                say(f"{role} is gone, exit code {process.returncode}")
                del self._running[role]
                self.code = self.code if role == killed else self.code or 1
                killed = "" if role == killed else killed
                if respawn and self._starts[role] <= RESPAWNS:
                    self._stop.wait(0.5)
                    say(f"starting {role} again")
                    self.start(role)

    def end(self) -> None:
        """Camera, node, subscriber: each has said its last word before the next is ended."""
        for role in ROLES:
            process = self._running.pop(role, None)
            if process is None:
                continue
            process.terminate()
            try:
                code = process.wait(GRACE_S)
            except subprocess.TimeoutExpired:
                say(f"{role} does not end within {GRACE_S:g} s: killing it")
                process.kill()
                code = process.wait()
            if code:
                say(f"{role} has ended with {code}")
            self.code = self.code or abs(code)

    def _is_there(self, role: str) -> bool:
        return self._running[role].poll() is None and not self._stop.asked


def say(text: str) -> None:
    """A line of the launcher."""
    print(f"launch: {text}", flush=True)


def main() -> int:
    """Start, watch, end."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("bundle", type=Path)
    parser.add_argument("--frames", type=Path, required=True, help=".npz or .npy")
    parser.add_argument("--fps", type=float, default=30)
    parser.add_argument("--seconds", type=float, default=0, help="0: until Ctrl-C")
    parser.add_argument("--slow", type=float, default=0, help="ms of work for each answer")
    parser.add_argument("--deadline-ms", type=float, help="older answers are marked as late")
    parser.add_argument("--kill", choices=ROLES, help="end this one with SIGKILL")
    parser.add_argument("--after", type=float, default=5, help="seconds until then")
    parser.add_argument("--respawn", action="store_true", help="start again what dies")
    parser.add_argument("--json", type=Path, help="the subscriber's figures")
    add_ports(parser)
    options = parser.parse_args()
    ports = ["--ports", *map(str, options.ports)]
    node = [str(options.bundle), "--slow", str(options.slow), *ports]
    if options.deadline_ms is not None:
        node += ["--deadline-ms", str(options.deadline_ms)]
    commands = {
        "subscriber": [*(["--json", str(options.json)] if options.json else []), *ports],
        "node": node,
        "camera": ["--frames", str(options.frames), "--fps", str(options.fps), *ports],
    }
    stop = Stop().on_signals()
    try:
        bus = open_bus("launch", options.ports)
    except BusError as error:
        print(error)
        return 5
    with bus:
        launch = Launch(commands, bus, stop)
        try:
            if all(launch.start(role) for role in commands):
                start_s = time.monotonic()
                end_s = start_s + options.seconds if options.seconds else float("inf")
                kill = (options.kill, start_s + options.after) if options.kill else None
                launch.watch(end_s, kill, respawn=options.respawn)
        finally:
            launch.end()
    return launch.code


if __name__ == "__main__":
    raise SystemExit(main())
