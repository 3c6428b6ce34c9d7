"""Stages of a run: each is timed, and can be cut off by time or by the user."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import TypeVar

from edgebm.search.deadline import Deadline, OutOfTime
from edgebm.search.seconds import Seconds

T = TypeVar("T")


def _nothing() -> bool:
    return False


class Stages:
    """Runs one stage after the other; `undone` names those that did not come to their end.

    `showable` tells whether there is something to write already. Until then an interruption
    ends the run, and from then on it is the end of its time.
    """

    def __init__(self, deadline: Deadline, seconds: Seconds) -> None:
        self.deadline, self.seconds = deadline, seconds
        self.undone: list[str] = []
        self.showable: Callable[[], bool] = _nothing

    def run(self, name: str, work: Callable[[], T], *, noted: bool = True) -> T | None:
        """What `work` returns; None where it was cut off.

        Args:
            name: for the report's steps and for what is undone.
            work: puts what it finds where it stays when it is cut off.
            noted: whether its seconds are to be noted under its name.

        Raises:
            KeyboardInterrupt: there is nothing to show yet, or it is the second one.
        """
        start = time.perf_counter()
        try:
            result = work()
        except OutOfTime:
            self.undone.append(name)
            return None
        except KeyboardInterrupt:
            if self.deadline.interrupted or not self.showable():
                raise
            self.deadline.interrupt()
            self.undone.append(name)
            return None
        if noted:
            self.seconds.note(name, time.perf_counter() - start)
        return result
