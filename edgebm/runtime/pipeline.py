"""Frame loops: frames are pushed at the rate of a camera, answered in order, and never pile up."""

from __future__ import annotations

import contextlib
import os
import threading
import weakref
from collections.abc import AsyncIterator, Callable, Hashable, Iterator
from functools import partial
from types import TracebackType
from typing import TYPE_CHECKING, Any, NoReturn

from edgebm.errors import Busy, Closed, UsageError
from edgebm.runtime.checks import Face
from edgebm.runtime.frame_buffers import FrameBuffers
from edgebm.runtime.frame_queue import FrameQueue
from edgebm.runtime.frame_rules import FrameRules, check_key, seconds_or_none
from edgebm.runtime.frame_worker import Run, Worker
from edgebm.runtime.frames import Frame, FrameCounts, FrameResult, failure

if TYPE_CHECKING:
    import asyncio


class Pipeline:
    """A frame loop, made by `Session.pipeline`. Results come in the order of the frames.

    Any thread may push and any may fetch. Fetch results with `poll`, `get`, iteration or, in an
    event loop, `async for`; or have `on_result` called on the pipeline's own thread. Close it, or
    use it in a `with` statement.
    """

    def __init__(
        self, face: Face, run: Run, refuse: Callable[[], NoReturn], rules: FrameRules
    ) -> None:
        self._rules, self._refuse = rules, refuse
        self._forked = False
        self._pid = os.getpid()
        # Those that wait, the one that is computed, the one that is copied.
        self._buffers = FrameBuffers(face, rules.depth + 2)
        give_back = self._buffers.give_back
        self._queue = FrameQueue(rules.depth, rules.drop, give_back)
        self._worker = Worker(self._queue, run, give_back, rules)
        # The thread knows the queue only, so a pipeline that is forgotten ends its thread.
        self._forgotten = weakref.finalize(self, self._queue.stop, drain=False)
        self._forgotten.atexit = False
        self._pushing = threading.Lock()
        self._key: Hashable = None
        self._last_boot_ns: int | None = None

    def push(
        self,
        inputs: Any,
        *,
        key: Hashable = None,
        stamp_ns: int | None = None,
        timeout_s: float | None = None,
    ) -> int:
        """Hand a frame over: `push(x)` or `push({"image": x})`. The inputs are copied.

        Args:
            inputs: as for `Session.run`. What is wrong with them becomes a failed result.
            key: what tells the frame, such as the camera's frame number. The key of the frame
                before marks a repeated frame.
            stamp_ns: carried to the result as it is.
            timeout_s: how long to wait for room where `drop` is "block"; None waits for ever.

        Returns:
            The number of the frame, `seq` of its result.

        Raises:
            Closed, ForkedUse: the pipeline cannot be used here.
            Busy: there was no room in time, or a callback would have to wait for itself. The
                frame was not taken.
            UsageError: the key cannot be hashed, or `timeout_s` is no time.
        """
        self._check_process()
        frame = Frame(key, stamp_ns)
        check_key(key)
        seconds = self._patience_s(timeout_s)
        if not self._pushing.acquire(timeout=-1 if seconds is None else seconds):
            raise Busy("another thread is waiting to push a frame", hint="push from one thread")
        try:
            left = None if seconds is None else max(0.0, seconds - frame.age_ms() / 1e3)
            keep = self._queue.admit(left)
            frame.repeated = key is not None and key in {self._key}
            if self._last_boot_ns is not None:
                frame.gap_ns = max(0, frame.in_boot_ns - self._last_boot_ns)
            if keep:
                self._copy_in(frame, inputs)
            number = self._queue.put(frame, keep=keep)
            self._key, self._last_boot_ns = key, frame.in_boot_ns
            return number
        finally:
            self._pushing.release()

    def poll(self) -> list[FrameResult]:
        """The results that are there, without waiting.

        Raises:
            Closed: the pipeline is closed and nothing is left to fetch.
            ForkedUse: the pipeline cannot be used here.
            UsageError: results go to `on_result`.
        """
        self._check_fetch()
        return self._queue.fetch_all()

    def get(self, timeout_s: float | None = None) -> FrameResult | None:
        """The next result, waited for; None if none came within `timeout_s` seconds.

        Raises:
            Closed: the pipeline is closed and nothing is left to fetch.
            ForkedUse: the pipeline cannot be used here.
            UsageError: results go to `on_result`, or `timeout_s` is no time.
        """
        self._check_fetch()
        return self._queue.fetch(seconds_or_none(timeout_s))

    async def get_async(self) -> FrameResult:
        """The next result, awaited in any event loop; cancelling loses none.

        Raises:
            Closed: the pipeline is closed and nothing is left to fetch.
            ForkedUse: the pipeline cannot be used here.
            UsageError: results go to `on_result`.
        """
        import asyncio  # tens of milliseconds that only programs with an event loop spend

        self._check_fetch()
        loop = asyncio.get_running_loop()
        while True:
            future: asyncio.Future[None] = loop.create_future()
            wake = partial(_wake, loop, future)
            result = self._queue.fetch(0, wake)
            if result is not None:
                return result
            try:
                await future
            finally:
                self._queue.forget(wake)

    def __iter__(self) -> Iterator[FrameResult]:
        """Results as they come, until the pipeline is closed and nothing is left to fetch."""
        with contextlib.suppress(Closed):
            while (result := self.get()) is not None:
                yield result

    def __aiter__(self) -> AsyncIterator[FrameResult]:
        return self

    async def __anext__(self) -> FrameResult:
        try:
            return await self.get_async()
        except Closed:
            raise StopAsyncIteration from None

    @property
    def counts(self) -> FrameCounts:
        """All frames so far, counted at one moment.

        Raises:
            ForkedUse: the pipeline cannot be used here.
        """
        self._check_process()
        return self._queue.counts()

    def close(self, *, drain: bool = False, timeout_s: float | None = 2.0) -> bool:
        """Take no more frames and end the thread. Results that are there can still be fetched.

        Args:
            drain: answer the frames that wait. Without it they are dropped, and counted so.
            timeout_s: seconds to wait for the thread. A frame that is not done by then is
                dropped, so that no one waits for it any more.

        Returns:
            Whether the thread has ended. A model or a callback that hangs cannot be stopped, and
            a callback that closes its own pipeline is still running.

        Raises:
            UsageError: `timeout_s` is no time.
        """
        seconds = seconds_or_none(timeout_s)
        if self._forked:
            return True
        self._queue.stop(drain=drain)
        ended = self._worker.join(seconds)
        if not self._worker.is_current():
            self._queue.end()
        return ended

    def end(self) -> None:
        """What the session calls when it closes, or finds itself in a forked child."""
        if os.getpid() != self._pid:
            # Locks may be held by threads that are not here: nothing may touch them.
            self._forked = True
            self._forgotten.detach()
            return
        # The frames that wait are answered: by a session that refuses.
        self._queue.stop(drain=True, why="the session is closed")

    def __enter__(self) -> Pipeline:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        value: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def _check_process(self) -> None:
        if self._forked:
            self._refuse()

    def _patience_s(self, timeout_s: float | None) -> float | None:
        seconds = seconds_or_none(timeout_s)
        if self._rules.drop != "block":
            return None  # nothing to wait for but another thread's copying
        # A callback that waited for room would wait for itself.
        return 0.0 if self._worker.is_current() else seconds

    def _check_fetch(self) -> None:
        self._check_process()
        if self._rules.on_result is not None:
            raise UsageError(
                "the results of this pipeline go to on_result",
                hint="open the pipeline without on_result to fetch them",
            )

    def _copy_in(self, frame: Frame, inputs: Any) -> None:
        try:
            frame.inputs = self._buffers.copy(inputs)
        except Exception as error:  # noqa: BLE001 - the result says it, the loop goes on
            frame.error = failure(error)


def _wake(loop: asyncio.AbstractEventLoop, future: asyncio.Future[None]) -> None:
    # A loop that has been closed has nobody left who waits.
    with contextlib.suppress(RuntimeError):
        loop.call_soon_threadsafe(_set, future)


def _set(future: asyncio.Future[None]) -> None:
    if not future.done():
        future.set_result(None)
