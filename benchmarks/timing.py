"""Latency of contenders measured in turns, so that a noisy minute hits all of them alike.

A runtime's worker threads spin for a while after a call and slow down whoever comes next, so
each turn begins with a pause and a few calls that do not count.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Mapping

from edgebm.runtime.bench import time_calls

TURNS = 12
PAUSE_S = 0.03
TURN_S = 0.15
WARMUP = 3


def race(
    contenders: Mapping[str, Callable[[], object]], turns: int = TURNS, turn_s: float = TURN_S
) -> dict[str, list[float]]:
    """Median latency in ms of each turn of each contender; every contender gets ``turns``."""
    medians: dict[str, list[float]] = {name: [] for name in contenders}
    for _ in range(turns):
        for name, call in contenders.items():
            time.sleep(PAUSE_S)
            medians[name].append(time_calls(call, seconds=turn_s, warmup=WARMUP).p50_ms)
    return medians


def median_ms(turns: list[float]) -> float:
    """The figure that is compared: the median over the turns."""
    return statistics.median(turns)
