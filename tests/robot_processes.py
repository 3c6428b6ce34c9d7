"""The programs of `examples/robot_node`, run as a user runs them, on free ports."""

from __future__ import annotations

import os
import re
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path
from types import TracebackType
from typing import IO, Any

from example_calls import EXAMPLES, ROOT, WITHOUT_HOST

EXAMPLE = EXAMPLES / "robot_node"
# Far more than anything takes, on a machine that has much else to do.
PATIENCE_S = 120.0

# Programs of a test: a camera that sends what it should not, and somebody who gives orders.
BAD_CAMERA = """
import sys, time, zenoh
from pathlib import Path
import numpy as np
from bus import FRAME, MARK, REPORT, Presence, open_bus
from wire import pack_frame, pack_mark

with open_bus("camera", [int(port) for port in sys.argv[2:]]) as bus:
    presences = [Presence(bus, "camera", source) for source in (1001, 1002)]
    for presence in presences:
        presence.say("active")
    came = []
    bus.declare_subscriber(REPORT, came.append)

    def send(data, reports, key=FRAME):
        wanted = len(came) + reports
        bus.put(key, data, congestion_control=zenoh.CongestionControl.BLOCK)
        while len(came) < wanted:
            time.sleep(0.01)

    while not Path(sys.argv[1]).exists():
        time.sleep(0.01)
    good = np.zeros((32, 32, 3), np.uint8)
    send(pack_frame(1001, 0, 0, good), 1)
    send(pack_frame(1001, 1, 0, good[:20]), 1)
    send(pack_frame(1001, 2, 0, good.astype(np.float32)), 1)
    whole = pack_frame(1001, 3, 0, good)
    send(whole[:-5], 1)
    send(whole[:4] + bytes([9]) + whole[5:], 0)
    send(b"not a frame", 0)
    send(pack_frame(1002, 0, 0, good), 1)
    send(pack_frame(1001, 6, 0, good), 2)
    send(pack_frame(1001, 6, 0, good), 0)
    send(pack_mark(1001, 9, 0), 1, MARK)
    send(pack_mark(1002, 1, 0), 0, MARK)
    for presence in presences:
        presence.say("finalized")
"""
ORDERS = """
import json, sys
from bus import open_bus
from lifecycle import ask

bundle, good = sys.argv[1:3]
with open_bus("orders", [int(port) for port in sys.argv[3:]]) as bus:
    def tell(verb):
        print(json.dumps(ask(bus, verb, 100)), flush=True)
    for verb in ("state", "configure", "activate"):
        tell(verb)
    open(bundle, "wb").write(open(good, "rb").read())
    for verb in ("configure", "configure", "activate", "cleanup", "deactivate", "activate",
                 "deactivate", "cleanup", "fly", "configure", "shutdown"):
        tell(verb)
"""


def free_ports(count: int = 3) -> list[str]:
    """Ports of the loopback device that nobody uses now."""
    sockets = [socket.socket() for _ in range(count)]
    try:
        for each in sockets:
            each.bind(("127.0.0.1", 0))
        return [str(each.getsockname()[1]) for each in sockets]
    finally:
        for each in sockets:
            each.close()


class Robot:
    """Processes that are ended, whatever happens, and what they have printed."""

    def __init__(self, folder: Path) -> None:
        self.ports = ["--ports", *free_ports()]
        self._folder = folder
        self._running: dict[str, subprocess.Popen[bytes]] = {}
        self._starts: list[IO[bytes]] = []
        self._logs: dict[str, Path] = {}
        self._read: dict[str, int] = {}

    def start(self, role: str, *options: object) -> None:
        """A program of the example, without torch and the host half."""
        program = [sys.executable, "-c", WITHOUT_HOST, EXAMPLE / f"{role}.py"]
        self.run(role, *program, *options, *self.ports)

    def run(self, name: str, *command: object) -> None:
        """Any command, whose output is that of `name` from now on."""
        log = self._folder / f"{name}{len(self._starts)}.log"
        self._starts.append(log.open("wb"))
        environment = os.environ | {
            "PYTHONPATH": f"{ROOT}{os.pathsep}{EXAMPLE}",
            "OMP_NUM_THREADS": "1",
            "PYTHONUNBUFFERED": "1",
        }
        self._running[name] = subprocess.Popen(
            [str(part) for part in command],
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=self._starts[-1],
            stderr=subprocess.STDOUT,
        )
        self._logs[name], self._read[name] = log, 0

    def shown(self, name: str) -> str:
        """What it has printed so far."""
        return self._logs[name].read_text()

    def forget(self) -> None:
        """From now on only what is printed later is awaited."""
        self._read = {name: len(self.shown(name)) for name in self._logs}

    def awaits(self, name: str, pattern: str) -> re.Match[str]:
        """Wait until it has printed this."""
        end = time.monotonic() + PATIENCE_S
        while time.monotonic() < end:
            gone = self._running[name].poll() is not None
            if found := re.search(pattern, self.shown(name)[self._read[name] :]):
                return found
            assert not gone, f"{name} has ended without {pattern!r}:\n{self.shown(name)}"
            time.sleep(0.02)
        raise AssertionError(f"{name} does not print {pattern!r}:\n{self.shown(name)}")

    def kill(self, name: str) -> None:
        """SIGKILL."""
        self._running[name].kill()
        self._running.pop(name).wait()

    def end(self, name: str, number: int = signal.SIGTERM) -> int:
        """Ask it to end; its exit code."""
        self._running[name].send_signal(number)
        return self.wait(name)

    def wait(self, name: str) -> int:
        """Its exit code, when it has ended."""
        return self._running.pop(name).wait(PATIENCE_S)

    def __enter__(self) -> Robot:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        value: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        for process in self._running.values():
            process.kill()
            process.wait()
        for log in self._starts:
            log.close()
        if value is not None:
            for name, log in self._logs.items():
                print(f"=== {name}\n{log.read_text()}")


def adds_up(frames: dict[str, Any]) -> bool:
    """Whether every frame that was sent is in exactly one place of the account."""
    kinds = ("answered", "failed", "dropped", "missed", "refused", "unseen")
    kinds += ("unattended", "under_way", "lost_without_a_report")
    return frames["sent"] == sum(frames[kind] for kind in kinds)
