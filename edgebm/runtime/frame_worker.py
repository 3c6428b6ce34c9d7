"""The thread that answers the frames of one pipeline."""

from __future__ import annotations

import atexit
import os
import threading
import time
import weakref
from collections.abc import Callable, Mapping
from typing import Any, Protocol

from numpy.typing import NDArray

from edgebm.errors import DeadlineExceeded, ResourceError
from edgebm.runtime.frame_queue import FrameQueue
from edgebm.runtime.frame_rules import FrameRules, OnResult
from edgebm.runtime.frames import Frame, FrameResult, Inputs, failure

# At the end of the interpreter a frame may finish; a model or callback that hangs is left behind.
_EXIT_S = 1.5


class Run(Protocol):
    """`Session.run`, or what answers in its place."""

    def __call__(
        self, inputs: Inputs, /, *, deadline_ms: float | None
    ) -> Mapping[str, NDArray[Any]]: ...


class Worker:
    """Answers the frames of `queue` in order, one at a time, until the queue has no more.

    `give_back` gets each frame when its inputs are not needed any more.
    """

    def __init__(
        self,
        queue: FrameQueue,
        run: Run,
        give_back: Callable[[Frame], None],
        rules: FrameRules,
    ) -> None:
        self.queue = queue
        self.pid = os.getpid()
        self._run, self._give_back = run, give_back
        self._deadline_ms, self._on_result = rules.deadline_ms, rules.on_result
        self._thread = threading.Thread(target=self._work, name="edgebm-pipeline", daemon=True)
        try:
            self._thread.start()
        except RuntimeError as cause:
            raise ResourceError(
                f"no thread could be started for the pipeline: {cause}",
                hint="the system's limit on threads (ulimit -u), or the interpreter is ending",
            ) from cause
        _WORKERS.add(self)

    def is_current(self) -> bool:
        """Whether the caller is a callback of this pipeline."""
        return threading.current_thread() is self._thread

    def join(self, timeout_s: float | None) -> bool:
        """Wait for the end; whether it has come. False at once on the worker's own thread."""
        if not self.is_current():
            self._thread.join(timeout_s)
        return not self._thread.is_alive()

    def _work(self) -> None:
        try:
            while self._one():
                pass
        except BaseException as error:
            self.queue.stop(drain=False, why=f"the pipeline's thread ended with {error!r}")
            raise
        finally:
            self.queue.end()

    def _one(self) -> bool:
        # A function of its own: nothing of a frame stays alive while the next is waited for.
        frame = self.queue.take()
        if frame is None:
            return False
        self._answer(frame)
        if self._on_result is None:
            self.queue.finish(frame)
        elif (result := self.queue.pass_on(frame)) is not None:
            self._call_back(self._on_result, result)
        return True

    def _answer(self, frame: Frame) -> None:
        limit_ms, age_ms = self._deadline_ms, frame.age_ms()
        if frame.error is None and limit_ms is not None and age_ms >= limit_ms:
            frame.error = DeadlineExceeded(
                f"not started: the frame was {age_ms:.3f} ms old, {limit_ms} ms were allowed",
                hint="a faster model, a smaller depth, or frames at a lower rate",
                details={"deadline_ms": limit_ms, "age_ms": age_ms},
            )
        if frame.error is None and frame.inputs is not None:
            left_ms = None if limit_ms is None else limit_ms - age_ms
            frame.t_start_ns = time.monotonic_ns()
            try:
                frame.outputs = self._run(frame.inputs, deadline_ms=left_ms)
            except Exception as error:  # noqa: BLE001 - the result says it, the loop goes on
                frame.error = failure(error)
        frame.t_end_ns = time.monotonic_ns()
        frame.late = limit_ms is not None and (
            frame.age_ms() > limit_ms or isinstance(frame.error, DeadlineExceeded)
        )
        self._give_back(frame)

    def _call_back(self, on_result: OnResult, result: FrameResult) -> None:
        try:
            on_result(result)
        except BaseException as error:  # noqa: BLE001 - sys.exit() would end the thread in silence
            if self.queue.count_callback_error():
                told = (type(error), error, error.__traceback__, self._thread)
                threading.excepthook(threading.ExceptHookArgs(told))


_WORKERS: weakref.WeakSet[Worker] = weakref.WeakSet()


@atexit.register
def _end_all() -> None:
    """A daemon thread that runs a model while the interpreter is taken apart may crash it."""
    mine = [worker for worker in _WORKERS if worker.pid == os.getpid()]
    for worker in mine:
        worker.queue.stop(drain=False)
    until = time.monotonic() + _EXIT_S
    for worker in mine:
        worker.join(max(0.0, until - time.monotonic()))
