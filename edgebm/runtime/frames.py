"""What a frame loop says about a frame, and about all of them."""

from __future__ import annotations

import time
from collections.abc import Hashable, Mapping
from dataclasses import dataclass, field
from typing import Any

from numpy.typing import NDArray

from edgebm.errors import EdgebmError, ResourceError

Inputs = dict[str, NDArray[Any]]


_BOOT = getattr(time, "CLOCK_BOOTTIME", None)


def boot_ns() -> int:
    """Nanoseconds that never jump and go on while the machine sleeps, where it can tell."""
    return time.monotonic_ns() if _BOOT is None else time.clock_gettime_ns(_BOOT)


@dataclass(frozen=True, slots=True, eq=False)
class FrameResult:
    """The answer to one frame, or why there is none.

    Attributes:
        seq: the number of the frame: 0 for the first one pushed.
        key: what `push` was given to tell the frame by.
        outputs: what `Session.run` returns, owned by you; None where the frame failed.
        error: why the frame failed, or None.
        late: the pipeline has a deadline, and the frame was older than that at `t_end_ns`.
        dropped_before: frames dropped between the result handed out before and this one.
        repeated: the frame pushed before had the same key: the source stands still.
        gap_ns: nanoseconds from the push before to this one, asleep or awake; 0 for the first.
        stamp_ns: what `push` was given; not looked at.
        t_in_ns: when it was pushed, on the clock of `time.monotonic_ns`, like the two below.
        t_start_ns: when the model began; None if it did not.
        t_end_ns: when the result was there.
    """

    seq: int
    key: Hashable
    outputs: Mapping[str, NDArray[Any]] | None
    error: EdgebmError | None
    late: bool
    dropped_before: int
    repeated: bool
    gap_ns: int
    stamp_ns: int | None
    t_in_ns: int
    t_start_ns: int | None
    t_end_ns: int

    @property
    def ok(self) -> bool:
        """Whether there are outputs; they may still be `late`."""
        return self.error is None


@dataclass(frozen=True, slots=True)
class FrameCounts:
    """All frames so far. At any moment pushed = answered + failed + dropped + waiting.

    Attributes:
        pushed: frames that `push` took.
        answered: results with outputs that were handed out.
        failed: results without outputs that were handed out.
        dropped: frames that get no result, or whose result nobody fetched in time.
        waiting: frames that wait, are being computed, or whose result can be fetched.
        repeated: of those pushed: with the same key as the frame before.
        late: of those handed out: later than the deadline.
        callback_errors: exceptions that `on_result` raised.
    """

    pushed: int
    answered: int
    failed: int
    dropped: int
    waiting: int
    repeated: int
    late: int
    callback_errors: int


@dataclass(slots=True, eq=False)
class Frame:
    """A frame on its way through the loop; it is pushed when it is made."""

    key: Hashable
    stamp_ns: int | None
    t_in_ns: int = field(default_factory=time.monotonic_ns)
    in_boot_ns: int = field(default_factory=boot_ns)
    seq: int = -1
    gap_ns: int = 0
    repeated: bool = False
    inputs: Inputs | None = None
    outputs: Mapping[str, NDArray[Any]] | None = None
    error: EdgebmError | None = None
    late: bool = False
    t_start_ns: int | None = None
    t_end_ns: int = 0

    def age_ms(self) -> float:
        """Milliseconds since the frame was pushed, asleep or awake."""
        return (boot_ns() - self.in_boot_ns) / 1e6

    def result(self, dropped_before: int) -> FrameResult:
        """What the consumer gets."""
        return FrameResult(
            self.seq,
            self.key,
            self.outputs,
            self.error,
            self.late,
            dropped_before,
            self.repeated,
            self.gap_ns,
            self.stamp_ns,
            self.t_in_ns,
            self.t_start_ns,
            self.t_end_ns,
        )


def failure(error: Exception) -> EdgebmError:
    """The error of a failed result for whatever was raised.

    A traceback holds the frame that holds the error: without the garbage collector, which a
    real-time process may switch off, every failed frame would stay in memory.
    """
    if isinstance(error, EdgebmError):
        known = error
    elif isinstance(error, MemoryError):
        known = ResourceError("there was no memory for this frame", hint="a smaller depth")
    else:
        known = EdgebmError(
            f"{type(error).__name__}: {error}",
            hint="edgebm does not know this error: please report it with its details",
            details={"traceback": _text(error)},
        )
    link: BaseException | None = known
    while link is not None:
        link.__traceback__ = None
        link = link.__cause__ or link.__context__
    return known


def _text(error: Exception) -> str:
    import traceback  # for what should never be raised: not worth its time at the start

    return "".join(traceback.format_exception(type(error), error, error.__traceback__))
