"""One call of a session: inputs are checked, a vendor request is taken, an answer handed out."""

from __future__ import annotations

import contextlib
from collections.abc import Mapping, Sequence
from time import perf_counter
from typing import Any, NoReturn

from numpy.typing import NDArray

from edgebm.errors import Closed, ForkedUse
from edgebm.runtime.answer import Answer, Doubt
from edgebm.runtime.buffers import check_buffers
from edgebm.runtime.calls import CallLog
from edgebm.runtime.checks import Arrays, Face
from edgebm.runtime.deadline import Deadline, Watchdog
from edgebm.runtime.engines import Engine
from edgebm.runtime.input_faults import raise_faults
from edgebm.runtime.lanes import Lane, Lanes
from edgebm.spec import Shapes, TensorSpec


class CallPath:
    """What every call goes through that `Slot.quick` does not answer.

    `calls` counts them, `report` says what the engine is. It ends when the session is closed, and
    in a forked child. A session that goes over to another engine takes another path, and leaves
    this one to the calls and streams that have begun.
    """

    def __init__(
        self,
        face: Face,
        outputs: Sequence[TensorSpec],
        engine: Engine,
        calls: CallLog,
        report: dict[str, Any],
        watchdog: Watchdog | None = None,
    ) -> None:
        self.calls, self.report = calls, report
        self.lanes = Lanes(face, tuple(spec.name for spec in outputs))
        self.is_forked = False
        self.has_ended = False
        self._face, self._outputs = face, outputs
        self._engine: Engine | None = engine
        self._watchdog = watchdog or Watchdog()
        self._expected: tuple[Sequence[Shapes], Mapping[str, NDArray[Any]] | None] = (), None

    def engine(self) -> Engine:
        """What requests are made by.

        Raises:
            Closed, ForkedUse: the session cannot be used here.
        """
        engine = self._engine
        if self.has_ended or engine is None:
            self.refuse()
        return engine

    def warm_up(
        self, static_shapes: Sequence[Shapes], example: Mapping[str, NDArray[Any]] | None
    ) -> float | None:
        """Make the first call as fast as the tenth, for every shape that is known beforehand.

        Returns:
            Seconds that a call of `example` takes; None without one.
        """
        self._expected, taken_s = (static_shapes, example), None
        for shapes in static_shapes:
            self.answer(self._face.zeros(shapes), None, {})
        if example is not None:
            for _ in range(2):
                began_s = perf_counter()
                self.answer(example, None, {})
                taken_s = perf_counter() - began_s
        self.lanes.keep()
        return taken_s

    def behind(self, other: CallPath) -> CallPath:
        """A path to this one's engine for the session of `other`, warmed up; this one ends.

        Raises:
            BackendError: the engine fails.
        """
        engine, self._engine = self.engine(), None
        self.end()
        try:
            path = CallPath(
                self._face, self._outputs, engine, other.calls, self.report, other._watchdog
            )
            path.warm_up(*self._expected)
        except BaseException:
            engine.close()
            raise
        return path

    def retire(self) -> None:
        """Let go of all requests that are idle.

        Calls and streams that have begun go on, and the engine goes with the last of them.
        """
        ready, self.lanes.ready = self.lanes.ready, {}
        for lane in ready.values():
            with contextlib.suppress(IndexError):
                while True:
                    lane.pop().let_go()

    def refuse(self) -> NoReturn:
        """Say why nothing can be asked any more.

        Raises:
            Closed, ForkedUse: always.
        """
        if self.is_forked:
            raise ForkedUse(
                "the session was loaded in the parent process",
                hint="start the child with the 'spawn' method, or load only in the child",
            )
        raise Closed("the session is closed", hint="load the bundle again")

    def counted(
        self,
        inputs: Any,
        out: Mapping[str, NDArray[Any]] | None,
        deadline_ms: float | None,
        named: Mapping[str, Any],
    ) -> Answer:
        """A call of the user: arguments, answer and errors are those of `Session.run`."""
        began_s = perf_counter()
        try:
            if deadline_ms is None:
                answer = self.answer(inputs, out, named)
            else:
                answer = self._timed(inputs, out, deadline_ms, named)
        except Exception as error:
            self.calls.failed(error)
            raise
        self.calls.answered(began_s)
        return answer

    def answer(
        self,
        inputs: Any,
        out: Mapping[str, NDArray[Any]] | None,
        named: Mapping[str, Any],
        deadline: Deadline | None = None,
    ) -> Answer:
        """A call that is not counted, such as those while loading."""
        if self.has_ended:
            self.refuse()
        arrays = self._face.pick(inputs, named)
        lane = self.lanes.find(arrays)
        if lane is None:
            arrays, lane = self.lanes.admit(arrays)
        if out is not None:
            check_buffers(out, self._outputs)
        if deadline is not None:
            deadline.check()
        return self._infer(lane, arrays, out, deadline)

    def end(self) -> None:
        """Refuse calls from now on; those that are running finish, or are stopped in time."""
        self.has_ended = True
        self.lanes.ready = {}

    def close(self) -> None:
        """Give the engine back, after `end`."""
        self._watchdog.close()
        engine, self._engine = self._engine, None
        if engine is not None:
            engine.close()

    def abandon(self, calls: CallLog) -> None:
        """Refuse calls in a forked child. The engine is kept: what is left of it must not end."""
        self.is_forked = self.has_ended = True
        self.calls = calls
        self.lanes.ready = {}

    def _timed(
        self,
        inputs: Any,
        out: Mapping[str, NDArray[Any]] | None,
        deadline_ms: Any,
        named: Mapping[str, Any],
    ) -> Answer:
        deadline = Deadline(deadline_ms)
        answer = self.answer(inputs, out, named, deadline)
        if deadline.is_over:
            answer.late = True
            self.calls.late()
        return answer

    def _infer(
        self,
        lane: Lane,
        arrays: Arrays,
        out: Mapping[str, NDArray[Any]] | None,
        deadline: Deadline | None,
    ) -> Answer:
        try:
            slot = lane.pop()
        except IndexError:
            slot = self.lanes.slot(self.engine(), arrays, self.calls)
        doubts: tuple[Doubt, ...] = ()
        if slot.take(arrays):
            faults, doubts = self._face.examine(slot.inputs)
            if faults:
                lane.append(slot)
                raise_faults(faults)
        # A request that raised is not used again.
        reusable = True
        if deadline is None:
            slot.request.infer()
        else:
            reusable = deadline.infer(slot.request, self._watchdog)
        answer = slot.answer(out)
        if reusable:
            lane.append(slot)
        if doubts:
            answer.doubts = doubts
            self.calls.doubtful()
        return answer
