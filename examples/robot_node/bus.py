"""The bus: Zenoh between processes of one machine, and who is there.

Each process listens on a port of its own, and dials those that stand after it in `ROLES` again and
again: any of them may start, die and come back in any order. Nothing leaves the loopback device.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import queue
import signal
import threading
from collections.abc import Callable

import zenoh

ROLES = ("camera", "node", "subscriber")
FRAME, MARK = "robot/camera/frame", "robot/camera/mark"
REPORT, DIAGNOSTICS = "robot/node/report", "robot/node/diagnostics"
LIFECYCLE, LEDGER = "robot/node/lifecycle", "robot/node/ledger"
ALIVE = "robot/alive"


class BusError(Exception):
    """The bus cannot be opened; a program says so and ends with 5."""


def add_ports(parser: argparse.ArgumentParser) -> None:
    """`--ports`: one for each process."""
    parser.add_argument(
        "--ports",
        type=int,
        nargs=3,
        default=[17447, 17448, 17449],
        metavar=("CAMERA", "NODE", "SUBSCRIBER"),
        help="TCP ports on 127.0.0.1, the same for all (default: %(default)s)",
    )


def dialled(role: str) -> tuple[str, ...]:
    """Whom a process connects to: of two only one dials.

    Where both do, and one of them stands still for longer than the lease of 10 s, they may end up
    half connected for good: it hears messages, but no tokens (eclipse-zenoh/zenoh, issue 2806).
    """
    return ROLES[ROLES.index(role) + 1 :] if role in ROLES else ROLES


def open_bus(role: str, ports: list[int]) -> zenoh.Session:
    """Join as one of `ROLES`, or as anybody else, who only connects.

    Raises:
        BusError: the port is in use: by another process of that role, perhaps.
    """
    at = {name: f"tcp/127.0.0.1:{port}" for name, port in zip(ROLES, ports, strict=True)}
    config = {
        "mode": "peer",
        "listen": {
            "endpoints": [at[role]] if role in at else [],
            "timeout_ms": 0,
            "exit_on_failure": True,
        },
        # For ever, in the background: a peer that is not there yet is nothing special.
        "connect": {
            "endpoints": [at[name] for name in dialled(role)],
            "timeout_ms": -1,
            "exit_on_failure": False,
            "retry": {"period_init_ms": 100, "period_max_ms": 1000, "period_increase_factor": 2},
        },
        # Messages that may wait for a process that the system has just put to sleep. What does
        # not fit is dropped by those who send frames and reports, and found by its number.
        "transport": {"link": {"tx": {"queue": {"size": {"data": 16}}}}},
        # Whom to talk to is said above: nobody is looked for, nobody is found.
        "scouting": {"multicast": {"enabled": False}, "gossip": {"enabled": False}},
    }
    try:
        return zenoh.open(zenoh.Config.from_json5(json.dumps(config)))
    except zenoh.ZError as cause:
        raise BusError(
            f"the bus could not be opened as {role}: {cause}\nIs another {role} running? "
            "--ports takes three others, the same for all processes"
        ) from cause


class Presence:
    """Says that a process is here, and in which state, by a liveliness token.

    The token goes with the process, however that ends: the others learn of a death at once.
    Last words are a state, too: whoever is gone without having been "finalized" has died.
    """

    def __init__(self, session: zenoh.Session, role: str, ident: int) -> None:
        self._liveliness = session.liveliness()
        self._key = f"{ALIVE}/{role}/{ident}"
        self._token: zenoh.LivelinessToken | None = None

    def say(self, state: str) -> None:
        """The new state is there before the old one goes."""
        old, self._token = self._token, self._liveliness.declare_token(f"{self._key}/{state}")
        if old is not None:
            old.undeclare()


class Peers:
    """Who is there, by the tokens that come and go."""

    def __init__(self) -> None:
        self._states: dict[tuple[str, int], set[str]] = {}
        self._finalized: set[tuple[str, int]] = set()

    def note(self, key: str, *, here: bool) -> str:
        """Take a token that came or went; a line to print, or ""."""
        role, ident, state = key.removeprefix(f"{ALIVE}/").split("/")
        who = (role, int(ident))
        states = self._states.setdefault(who, set())
        if here:
            states.add(state)
            if state == "finalized":
                self._finalized.add(who)
            return f"{role} {ident} is {state}"
        states.discard(state)
        if states:
            return ""
        del self._states[who]
        if who in self._finalized:
            self._finalized.discard(who)
            return f"{role} {ident} has ended as it should"
        return f"{role} {ident} DIED without a word"

    def here(self, role: str) -> dict[int, set[str]]:
        """The living ones of a role, and their states."""
        return {
            ident: set(states) for (kind, ident), states in self._states.items() if kind == role
        }


class Watch:
    """Follows who is there. `say` gets a line for everybody else who comes, goes or dies."""

    def __init__(
        self, session: zenoh.Session, me: tuple[str, int], say: Callable[[str], object]
    ) -> None:
        self._me, self._say = f"{ALIVE}/{me[0]}/{me[1]}/", say
        self._peers, self._lock = Peers(), threading.Lock()
        self.deaths = 0
        self._tokens = session.liveliness().declare_subscriber(
            f"{ALIVE}/*/*/*", self._note, history=True
        )

    def here(self, role: str) -> dict[int, set[str]]:
        """The living ones of a role, and their states."""
        with self._lock:
            return self._peers.here(role)

    def _note(self, sample: zenoh.Sample) -> None:
        key = str(sample.key_expr)
        if key.startswith(self._me):
            return
        with self._lock:
            line = self._peers.note(key, here=sample.kind == zenoh.SampleKind.PUT)
            self.deaths += "DIED" in line
        if line:
            self._say(line)


class Stop:
    """Whether the end was asked for: by SIGTERM, by Ctrl-C, or by `set`."""

    def __init__(self) -> None:
        # The one thing that may wake a waiting thread from within a signal handler.
        self._woken: queue.SimpleQueue[None] = queue.SimpleQueue()
        self.asked = False

    def on_signals(self) -> Stop:
        """From now on signals only ask for the end."""
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, lambda *_: self.set())
        return self

    def set(self) -> None:
        """Ask for the end."""
        self.asked = True
        self.wake()

    def wake(self) -> None:
        """End the waiting, and nothing else."""
        self._woken.put(None)

    def wait(self, timeout_s: float) -> bool:
        """Wait so long, or until something wakes it; whether the end was asked for."""
        if not self.asked:
            with contextlib.suppress(queue.Empty):
                self._woken.get(timeout=max(0.0, timeout_s))
        return self.asked
