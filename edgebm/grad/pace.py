"""How long a step of training takes on this machine."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable

from edgebm.grad.world import World

_FEWEST, _MOST = 6, 32  # steps that are timed
_FILLING = 2  # of them fill caches first, and do not count


def step_seconds(step: Callable[[int], None], steps: int, seconds: float, world: World) -> float:
    """The mean over a few of `steps` steps, from all of them: batches may differ in length.

    Args:
        step: does a step by its number, and leaves nothing behind.
        steps: how many there are.
        seconds: for timing, more or less.
        world: the processes that take the same steps; the leading one's clock counts.
    """
    until = time.monotonic() + seconds
    taken: list[float] = []
    while len(taken) < _FEWEST or (
        len(taken) < _MOST and world.shared(float(time.monotonic() < until))
    ):
        started = time.monotonic()
        step(len(taken) * (steps - 1) // _MOST)
        taken.append(time.monotonic() - started)
    return world.shared(statistics.fmean(taken[_FILLING:]))
