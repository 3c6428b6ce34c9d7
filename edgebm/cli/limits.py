"""Limits on latency, as `--require` takes them: read, and held against what was measured."""

from __future__ import annotations

import difflib
import math
import re
from collections.abc import Mapping, Sequence

from edgebm.errors import UsageError
from edgebm.runtime.bench import CALLS_NEEDED, Timing

# Name on the command line -> field of Timing.
FIELDS = {
    "p50": "p50_ms",
    "p90": "p90_ms",
    "p95": "p95_ms",
    "p99": "p99_ms",
    "p99.9": "p999_ms",
    "mean": "mean_ms",
    "max": "max_ms",
}
_UNITS_MS = {"us": 1e-3, "ms": 1.0, "s": 1e3}
_TIME = re.compile(r"([0-9]+(?:\.[0-9]*)?|\.[0-9]+)([a-z]*)")


def calls_needed(name: str) -> int:
    """Calls without which the figure `name` is not known."""
    return CALLS_NEEDED[float(name[1:])] if name[0] == "p" else 1


def parse_limits(texts: Sequence[str]) -> dict[str, float]:
    """`["p99=20ms,max=1s", "p50=800us"]` as `{"p99": 20.0, "max": 1000.0, "p50": 0.8}`, in ms.

    Raises:
        UsageError: says of every text that is no such limit what is wrong with it.
    """
    limits: dict[str, float] = {}
    faults = []
    for text in (part.strip() for given in texts for part in given.split(",")):
        name, _, time = (side.strip() for side in text.partition("="))
        fault = _fault(name, time, limits)
        if fault:
            faults.append(f"{text!r}: {fault}")
        else:
            limits[name] = _milliseconds(time)
    if faults:
        raise UsageError(
            f"--require {'; '.join(faults)}",
            hint=f"such as p99=20ms; names: {', '.join(FIELDS)}; units: {', '.join(_UNITS_MS)}",
            details={"faults": faults},
        )
    return limits


def _fault(name: str, time: str, limits: Mapping[str, float]) -> str:
    if not name or not time:
        return "NAME=TIME is expected"
    if name not in FIELDS:
        near = difflib.get_close_matches(name, FIELDS, n=1, cutoff=0.5)
        return f"there is no figure {name!r}" + (f", {near[0]!r} may be meant" if near else "")
    if name in limits:
        return f"{name} is limited twice"
    found = _TIME.fullmatch(time)
    if not found:
        return f"{time!r} is no time"
    unit = found.group(2)
    if unit not in _UNITS_MS:
        return f"{unit!r} is no unit" if unit else f"{time} has no unit, such as {time}ms"
    return ""


def _milliseconds(time: str) -> float:
    found = _TIME.fullmatch(time)
    assert found
    return float(found.group(1)) * _UNITS_MS[found.group(2)]


def missed_limits(timing: Timing, limits: Mapping[str, float], seconds: float) -> list[str]:
    """A sentence for each limit that is missed, or cannot be judged after `seconds`."""
    missed = []
    for name, limit in limits.items():
        value = getattr(timing, FIELDS[name])
        if value is None:
            needed = calls_needed(name)
            longer_s = math.ceil(seconds * needed / timing.calls * 1.1)
            missed.append(
                f"{name} is not known: {needed} calls are needed, {timing.calls} were made, "
                f"{needed - timing.calls} are missing; try --seconds {longer_s}"
            )
        elif value > limit:
            missed.append(f"{name} is {value:.4g} ms, {limit:.4g} ms were required")
    return missed
