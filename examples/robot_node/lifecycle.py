"""The lifecycle of a node, in the manner of ROS 2 managed nodes, and how it is asked for.

    python lifecycle.py configure
    python lifecycle.py activate
    python lifecycle.py state

Also `deactivate`, `cleanup` and `shutdown`. What is printed is the node's answer; it ends with 0,
with 2 where the state does not allow it, with the code of edgebm's error, or with 5 where no
node answers.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Callable
from typing import Any

import zenoh
from bus import LIFECYCLE, BusError, add_ports, open_bus

# From which states, and to which one. As in ROS 2: design.ros2.org, "Managed nodes".
TRANSITIONS: dict[str, tuple[frozenset[str], str]] = {
    "configure": (frozenset({"unconfigured"}), "inactive"),
    "activate": (frozenset({"inactive"}), "active"),
    "deactivate": (frozenset({"active"}), "inactive"),
    "cleanup": (frozenset({"inactive"}), "unconfigured"),
    "shutdown": (frozenset({"unconfigured", "inactive", "active"}), "finalized"),
}
VERBS = (*TRANSITIONS, "state")


class IllegalTransition(Exception):
    """The state does not allow it; the sentence says what it does allow."""


def target(state: str, verb: str) -> str:
    """The state that `verb` leads to.

    Raises:
        IllegalTransition: not from this one.
    """
    if verb not in TRANSITIONS:
        raise IllegalTransition(f"there is no {verb!r}, only {', '.join(VERBS)}")
    allowed, after = TRANSITIONS[verb]
    if state not in allowed:
        verbs = [name for name, (sources, _) in TRANSITIONS.items() if state in sources]
        raise IllegalTransition(
            f"the node is {state}: it cannot {verb}, only {' or '.join(verbs) or 'nothing'}"
        )
    return after


def answer(state: str, **more: Any) -> dict[str, Any]:
    """What the node says: `ok`, its state, and after a refusal `code`, `message` and `hint`."""
    return {"ok": not more.get("code"), "state": state, "exit_code": 0, **more}


def ask(
    session: zenoh.Session, verb: str, timeout_s: float, alive: Callable[[], bool] = lambda: True
) -> dict[str, Any] | None:
    """The answer of the node. One that is not there is awaited while `alive` is true.

    Returns:
        `answer`, or None if none came in time.
    """
    end_s = time.monotonic() + timeout_s
    while (left_s := end_s - time.monotonic()) > 0 and alive():
        for reply in session.get(f"{LIFECYCLE}/{verb}", timeout=left_s):
            if reply.ok is not None:
                told: dict[str, Any] = json.loads(reply.ok.payload.to_bytes())
                return told
        # Without a node the end of the query comes at once.
        time.sleep(min(0.1, left_s))
    return None


def main() -> int:
    """Ask once and print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("verb", choices=VERBS)
    parser.add_argument("--timeout-s", type=float, default=60)
    add_ports(parser)
    options = parser.parse_args()
    try:
        session = open_bus("lifecycle", options.ports)
    except BusError as error:
        print(error)
        return 5
    with session:
        told = ask(session, options.verb, options.timeout_s)
    if told is None:
        print(f"no node has answered on port {options.ports[1]} within {options.timeout_s:g} s")
        return 5
    print(json.dumps(told, indent=2))
    return int(told["exit_code"])


if __name__ == "__main__":
    raise SystemExit(main())
