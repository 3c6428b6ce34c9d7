"""Quantiles of times, and the account of a subscriber for people."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import numpy as np


def quantiles(times_ms: Iterable[float]) -> dict[str, float] | None:
    """p50, p99 and max, and how many there were; None if there were none."""
    times = np.fromiter(times_ms, np.float64)
    if not times.size:
        return None
    p50, p99 = np.percentile(times, [50, 99])
    return {"p50": float(p50), "p99": float(p99), "max": float(times.max()), "n": times.size}


def lines(told: dict[str, Any]) -> list[str]:
    """The account as text."""
    frames = told["frames"]
    kinds = ("answered", "failed", "dropped", "missed", "refused", "unseen")
    parts = " + ".join(f"{frames[kind]} {kind}" for kind in kinds)
    text = [
        f"frames: {frames['sent']} sent = {parts} + {frames['unattended']} while no node was "
        f"there + {frames['under_way']} under way + {frames['lost_without_a_report']} LOST "
        "WITHOUT A REPORT",
        f"reports: {told['gaps']} gaps, {frames['recovered']} frames known by asking again, "
        f"{frames['told_twice']} told twice; {told['late']} answers late",
        f"peers: {told['deaths']} died, {told['node_restarts']} restarts of the node, "
        f"{told['stale_times']} times no answer for too long",
    ]
    for name, what in (("node_ms", "node in to node out"), ("age_ms", "camera to subscriber")):
        times = told[name]
        if times:
            text.append(
                f"{what}: p50 {times['p50']:.2f} ms, p99 {times['p99']:.2f} ms, max "
                f"{times['max']:.2f} ms, {times['n']} answers"
            )
    return text
