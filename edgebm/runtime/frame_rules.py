"""What a pipeline is told about its frames."""

from __future__ import annotations

import math
import threading
from collections.abc import Callable, Hashable
from dataclasses import dataclass
from typing import Literal, get_args

from edgebm.errors import UsageError
from edgebm.runtime.frames import FrameResult

Drop = Literal["oldest", "newest", "block"]
OnResult = Callable[[FrameResult], object]


@dataclass(frozen=True, slots=True)
class FrameRules:
    """How a pipeline treats frames: see `Session.pipeline`.

    Raises:
        UsageError: a value is none of those allowed.
    """

    depth: int = 2
    drop: Drop = "oldest"
    deadline_ms: float | None = None
    on_result: OnResult | None = None

    def __post_init__(self) -> None:
        if type(self.depth) is not int or self.depth < 1:
            raise UsageError(f"depth is {self.depth!r}, 1 or more frames are expected")
        if self.drop not in get_args(Drop):
            raise UsageError(f"drop is {self.drop!r}, one of {list(get_args(Drop))} is expected")
        limit = self.deadline_ms
        number = isinstance(limit, (int, float)) and not isinstance(limit, bool)
        if limit is not None and not (number and limit > 0):
            raise UsageError(f"deadline_ms is {limit!r}, a number above 0 or None is expected")
        if self.on_result is not None and not callable(self.on_result):
            raise UsageError(f"on_result is {self.on_result!r}, a function is expected")


def check_key(key: Hashable) -> None:
    """Refuse what cannot tell a frame.

    Raises:
        UsageError: it cannot be hashed.
    """
    try:
        hash(key)
    except TypeError as cause:
        raise UsageError(
            f"key is {type(key).__name__}, which cannot be hashed",
            hint="a frame number, a time stamp or another small value tells a frame",
        ) from cause


def seconds_or_none(timeout_s: float | None) -> float | None:
    """A time that locks can wait; None is for ever.

    Raises:
        UsageError: it is no time.
    """
    if timeout_s is None:
        return None
    if not isinstance(timeout_s, (int, float)) or math.isnan(timeout_s) or timeout_s < 0:
        raise UsageError(f"timeout_s is {timeout_s!r}, a number of seconds or None is expected")
    return min(float(timeout_s), threading.TIMEOUT_MAX)
