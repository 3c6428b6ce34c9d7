"""Frames between those who push and those who fetch: bounded, in order, all accounted for."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable

from edgebm.errors import Busy, Closed
from edgebm.runtime.frame_rules import Drop
from edgebm.runtime.frames import Frame, FrameCounts, FrameResult

Wake = Callable[[], None]


class FrameQueue:
    """Frames that wait, the one being computed, and results that wait to be fetched.

    `oldest`: a frame that is not among the `depth` newest ones goes when another is pushed, or
    its result does; the frame being computed and the newest result stay.
    `newest`, `block`: `depth` frames and `depth` results wait. Then a new frame is dropped, or
    `admit` waits, and `finish` waits until a result is fetched.
    After `stop` no result is dropped and nothing waits for room: no more frames can come.

    `free` is called with each frame whose inputs are not needed any more.
    """

    def __init__(self, depth: int, drop: Drop, free: Callable[[Frame], None]) -> None:
        self._depth, self._drop, self._free = depth, drop, free
        # Re-entrant: `stop` may be called by the garbage collector on any thread at any time.
        lock = self._lock = threading.RLock()
        self._work, self._room, self._done = (threading.Condition(lock) for _ in range(3))
        self._waiting: deque[Frame] = deque()
        self._running: Frame | None = None
        self._ready: deque[Frame] = deque()
        self._wakes: list[Wake] = []
        self._closed = self._discarding = self._ended = False
        self._why = "the pipeline is closed"
        self._handed = -1  # the number of the frame whose result was handed out last
        self._pushed = self._answered = self._failed = self._dropped = 0
        self._repeated = self._late = self._callback_errors = 0

    def counts(self) -> FrameCounts:
        with self._lock:
            return FrameCounts(
                pushed=self._pushed,
                answered=self._answered,
                failed=self._failed,
                dropped=self._dropped,
                waiting=len(self._waiting) + len(self._ready) + (self._running is not None),
                repeated=self._repeated,
                late=self._late,
                callback_errors=self._callback_errors,
            )

    # -- those who push

    def admit(self, timeout_s: float | None) -> bool:
        """Whether the next frame will be kept. One thread at a time may be between this and `put`.

        Raises:
            Busy: there was no room within `timeout_s` seconds.
            Closed: after `stop`.
        """
        with self._lock:
            if self._drop == "block" and not self._room.wait_for(self._open_or_closed, timeout_s):
                raise Busy(
                    f"{len(self._waiting)} frames wait, and none was begun in time",
                    hint="fetch results, or choose a rule that drops frames",
                    details={"depth": self._depth, "timeout_s": timeout_s},
                )
            self._refuse_closed()
            return self._drop != "newest" or len(self._waiting) < self._depth

    def put(self, frame: Frame, *, keep: bool) -> int:
        """Number the frame and let it wait, unless it is not to be kept.

        Raises:
            Closed: after `stop`.
        """
        with self._lock:
            self._refuse_closed()
            frame.seq = self._pushed
            self._pushed += 1
            self._repeated += frame.repeated
            if not keep:
                self._lose(frame)
                return frame.seq
            self._waiting.append(frame)
            if self._drop == "oldest":
                self._lose_old()
            self._work.notify()
            return frame.seq

    # -- the one who computes

    def take(self) -> Frame | None:
        """The next frame to compute, waited for; None if none will come."""
        with self._lock:
            while True:
                if self._discarding:
                    self._lose_waiting()
                if self._waiting or self._closed:
                    break
                self._work.wait()
            if not self._waiting:
                return None
            self._running = self._waiting.popleft()
            self._room.notify_all()
            return self._running

    def finish(self, frame: Frame) -> None:
        """Let the result of the frame that `take` gave wait for those who fetch."""
        with self._lock:
            if self._drop != "oldest":
                self._room.wait_for(lambda: self._closed or len(self._ready) < self._depth)
            if self._running is not frame:
                return  # given up by `end`, and counted there
            self._running = None
            self._ready.append(frame)
            if self._drop == "oldest":
                self._lose_old()
            self._done.notify()
            self._wake_all()

    def pass_on(self, frame: Frame) -> FrameResult | None:
        """Hand the result out at once, in place of `finish`; None if the frame was given up."""
        with self._lock:
            if self._running is not frame:
                return None
            self._running = None
            return self._hand_out(frame)

    def count_callback_error(self) -> bool:
        """Whether it is the first one."""
        with self._lock:
            self._callback_errors += 1
            return self._callback_errors == 1

    def end(self) -> None:
        """Nothing more will come: what waits or is being computed is dropped."""
        with self._lock:
            self._closed = self._ended = True
            self._lose_waiting()
            if self._running is not None:
                # Its inputs are still being read if the thread hangs: they are not used again.
                self._running = None
                self._dropped += 1
            self._notify()
            self._wake_all()

    # -- those who fetch

    def fetch(self, timeout_s: float | None, wake: Wake | None = None) -> FrameResult | None:
        """The next result; None if there is none within `timeout_s` seconds.

        `wake` is then called once, from another thread, when it is worth asking again.

        Raises:
            Closed: no result is left and none will come.
        """
        with self._lock:
            if timeout_s != 0:
                self._done.wait_for(lambda: self._ready or self._ended, timeout_s)
            if self._ready:
                frame = self._ready.popleft()
                self._room.notify_all()
                return self._hand_out(frame)
            if self._ended:
                self._refuse_closed()
            if wake is not None:
                self._wakes.append(wake)
            return None

    def fetch_all(self) -> list[FrameResult]:
        """The results that are there.

        Raises:
            Closed: no result is left and none will come.
        """
        with self._lock:
            found = [self._hand_out(frame) for frame in self._ready]
            self._ready.clear()
            if self._ended and not found:
                self._refuse_closed()
            self._room.notify_all()
            return found

    def forget(self, wake: Wake) -> None:
        """Do not call `wake` any more."""
        with self._lock:
            self._wakes = [each for each in self._wakes if each is not wake]

    # -- those who close

    def stop(self, *, drain: bool, why: str = "") -> None:
        """Take no more frames. Those that wait are computed if `drain`, else dropped."""
        with self._lock:
            self._closed = True
            self._discarding |= not drain
            self._why = why or self._why
            self._notify()

    def _notify(self) -> None:
        for condition in (self._work, self._room, self._done):
            condition.notify_all()

    def _wake_all(self) -> None:
        wakes, self._wakes = self._wakes, []
        for wake in wakes:
            wake()

    def _open_or_closed(self) -> bool:
        return self._closed or len(self._waiting) < self._depth

    def _refuse_closed(self) -> None:
        if self._closed:
            raise Closed(
                self._why, hint="session.pipeline() opens another while the session lives"
            )

    def _hand_out(self, frame: Frame) -> FrameResult:
        # Results are handed out in order, so all frames in between were dropped.
        before, self._handed = frame.seq - self._handed - 1, frame.seq
        self._answered += frame.error is None
        self._failed += frame.error is not None
        self._late += frame.late
        return frame.result(before)

    def _lose(self, frame: Frame) -> None:
        self._dropped += 1
        self._free(frame)

    def _lose_waiting(self) -> None:
        while self._waiting:
            self._lose(self._waiting.popleft())

    def _lose_old(self) -> None:
        if self._closed:
            return
        first = self._pushed - self._depth
        while len(self._ready) > 1 and self._ready[0].seq < first:
            self._lose(self._ready.popleft())
        while self._waiting and self._waiting[0].seq < first:
            self._lose(self._waiting.popleft())
