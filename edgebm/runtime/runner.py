"""A loaded bundle that answers: our checks, pre-bound vendor tensors, answers the caller owns."""

from __future__ import annotations

import atexit
import os
import threading
import weakref
from collections.abc import Mapping, Sequence
from time import perf_counter
from types import TracebackType
from typing import Any, NoReturn, TypeVar

import numpy as np
from numpy import ndarray
from numpy.typing import NDArray

from edgebm.errors import Closed, ForkedUse, StateError
from edgebm.runtime.answer import Answer, Doubt
from edgebm.runtime.bench import Timing, endless, time_calls
from edgebm.runtime.buffers import check_buffers
from edgebm.runtime.checks import MISSING, Arrays, Face
from edgebm.runtime.deadline import Deadline, Watchdog
from edgebm.runtime.engines import Engine
from edgebm.runtime.frame_rules import Drop, FrameRules, OnResult
from edgebm.runtime.frames import FrameCounts
from edgebm.runtime.health import Health, Monitor
from edgebm.runtime.input_faults import raise_faults
from edgebm.runtime.lanes import Lane, Lanes
from edgebm.runtime.leaving import close_all
from edgebm.runtime.pipeline import Pipeline
from edgebm.runtime.slots import Slot
from edgebm.runtime.snapshot import identity
from edgebm.runtime.states import States
from edgebm.runtime.stream import Stream
from edgebm.runtime.values import ValueRules
from edgebm.spec import Manifest, Shapes, StateSpec, TensorSpec

_Either = TypeVar("_Either", Stream, Pipeline)
# Asking the kernel for the process id in every call would cost a tenth of a small model.
_LIVE: weakref.WeakSet[Session] = weakref.WeakSet()


class Session:
    """A bundle ready to answer, made by `load`. Threads may share it.

    `inputs`, `outputs` and `states` describe the face of the model.
    """

    def __init__(
        self,
        manifest: Manifest,
        engine: Engine,
        report: dict[str, Any],
        initial: Mapping[str, NDArray[Any]] | None = None,
        rules: ValueRules = ValueRules(),  # noqa: B008 - frozen
    ) -> None:
        self.inputs: tuple[TensorSpec, ...] = manifest.inputs
        self.outputs: tuple[TensorSpec, ...] = manifest.outputs
        self.states: tuple[StateSpec, ...] = manifest.states
        notes = {s.input: f"session.stream() feeds {s.input!r} back" for s in manifest.states}
        self._face = Face(manifest, notes, rules)
        self._fed = States(manifest, initial or {}, rules) if manifest.states else None
        self._streams: weakref.WeakSet[Stream | Pipeline] = weakref.WeakSet()
        # Of a model with one input; no array has a dtype of None.
        single = len(self.inputs) == 1
        self._name = self._face.names[0] if single else ""
        self._dtype = self._face.dtypes[0] if single else None
        self._engine: Engine | None = engine
        self._forked = False
        self._unusable = False
        self._lanes = Lanes(self._face, tuple(spec.name for spec in manifest.outputs))
        self._lock = threading.Lock()
        self._example: Mapping[str, NDArray[Any]] | None = None
        self._report = report
        self._watchdog = Watchdog()
        self._monitor = Monitor()
        self._calls = self._monitor.calls
        _LIVE.add(self)

    def run(
        self,
        inputs: Any = MISSING,
        /,
        *,
        out: Mapping[str, NDArray[Any]] | None = None,
        deadline_ms: float | None = None,
        **named: NDArray[Any],
    ) -> Answer:
        """Answer one call: `run(x)`, `run({"image": x})` or `run(image=x)`.

        Args:
            inputs: an array for a model with one input, or a mapping from name to array.
            out: arrays to write outputs to, returned in place of new ones. Names that are left
                out get new arrays. Each must have the shape and dtype of its output.
            deadline_ms: milliseconds after which the answer is worthless. A call without time
                left is not started, and one that takes longer is stopped; OpenVINO cannot stop
                a call, so its answer comes, marked as late.
            named: inputs by keyword.

        Returns:
            Outputs by name, in the order of `outputs`. The arrays belong to the caller. `late`
            and `doubts` say what is odd about the answer.

        Raises:
            InputError: a sub-class says what is wrong with the inputs or with `out`.
            DeadlineExceeded: no time was left, or the call was stopped.
            Closed, ForkedUse: the session cannot be used here.
            BackendFailed: the vendor runtime raised.
        """
        if deadline_ms is not None:
            return self._counted(inputs, out, deadline_ms, named)
        # A plain array for a model with one input: the same as `_run`, without its detours.
        given = inputs if not named else named if inputs is MISSING else None
        array = given.get(self._name) if type(given) is dict and len(given) == 1 else given
        if type(array) is ndarray and array.dtype is self._dtype and out is None:
            try:
                lane = self._lanes.ready[array.shape]
                slot = lane.pop()
            except (KeyError, IndexError):
                return self._counted(inputs, out, None, named)
            try:
                answer = slot.quick(array)
            except Exception as error:
                self._calls.failed(error)
                raise
            lane.append(slot)
            if answer is not None:
                return answer
        return self._counted(inputs, out, None, named)

    def _counted(
        self,
        inputs: Any,
        out: Mapping[str, NDArray[Any]] | None,
        deadline_ms: float | None,
        named: Mapping[str, Any],
    ) -> Answer:
        began_s = perf_counter()
        try:
            if deadline_ms is None:
                answer = self._run(inputs, out, named)
            else:
                answer = self._run_timed(inputs, out, deadline_ms, named)
        except Exception as error:
            self._calls.failed(error)
            raise
        self._calls.answered(began_s)
        return answer

    def _run(
        self,
        inputs: Any,
        out: Mapping[str, NDArray[Any]] | None,
        named: Mapping[str, Any],
        deadline: Deadline | None = None,
    ) -> Answer:
        if self._unusable:
            self._refuse()
        arrays = self._face.pick(inputs, named)
        lane = self._lanes.find(arrays)
        if lane is None:
            arrays, lane = self._lanes.admit(arrays)
        if out is not None:
            check_buffers(out, self.outputs)
        if deadline is not None:
            deadline.check()
        return self._answer(lane, arrays, out, deadline)

    def _answer(
        self,
        lane: Lane,
        arrays: Arrays,
        out: Mapping[str, NDArray[Any]] | None,
        deadline: Deadline | None,
    ) -> Answer:
        try:
            slot = lane.pop()
        except IndexError:
            slot = self._slot(arrays)
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
            self._calls.doubtful()
        return answer

    def _run_timed(
        self,
        inputs: Any,
        out: Mapping[str, NDArray[Any]] | None,
        deadline_ms: Any,
        named: Mapping[str, Any],
    ) -> Answer:
        deadline = Deadline(deadline_ms)
        answer = self._run(inputs, out, named, deadline)
        if deadline.is_over:
            answer.late = True
            self._calls.late()
        return answer

    def _slot(self, arrays: Arrays) -> Slot:
        engine = self._engine
        if engine is None:
            self._refuse()
        return self._lanes.slot(engine, arrays, self._calls)

    def stream(self) -> Stream:
        """A new stream, which carries the states of the model from step to step.

        Raises:
            StateError: the model has no states.
            Closed, ForkedUse: the session cannot be used here.
        """
        engine = self._engine
        if self._unusable or engine is None:
            self._refuse()
        if self._fed is None:
            raise StateError(
                "the model has no states to carry from step to step: run() is all it needs",
                hint="compress it with --state INPUT:OUTPUT, or a model of sequences with "
                "--streaming",
            )
        model = identity(self._report, [state.spec for state in self._fed.states])
        return self._watch(Stream(self._fed, engine, model, self._refuse, self._calls))

    def _watch(self, opened: _Either) -> _Either:
        with self._lock:
            self._streams.add(opened)
        if self._unusable:
            opened.end()
            self._refuse()
        return opened

    def pipeline(
        self,
        depth: int = 2,
        drop: Drop = "oldest",
        *,
        deadline_ms: float | None = None,
        on_result: OnResult | None = None,
    ) -> Pipeline:
        """A frame loop: frames go in at the rate of a camera and are answered by a thread.

        Args:
            depth: how many frames, and how many results, may wait.
            drop: what happens when more come. "oldest": only the `depth` newest frames are kept,
                with the one being computed and the newest result. "newest": new frames are
                dropped. "block": `push` waits.
            deadline_ms: age in milliseconds, from `push` on, after which an answer is worthless.
                A frame that is older when its turn comes is not begun and fails; one that gets
                older meanwhile is stopped or marked as late, as in `run`.
            on_result: called with each `FrameResult` on the pipeline's thread.

        Raises:
            UsageError: an argument is wrong.
            ResourceError: no thread could be started.
            Closed, ForkedUse: the session cannot be used here.
        """
        if self._unusable:
            self._refuse()
        rules = FrameRules(depth, drop, deadline_ms, on_result)
        return self._watch(Pipeline(self._face, self.run, self._refuse, rules))

    def _refuse(self) -> NoReturn:
        if self._forked:
            raise ForkedUse(
                "the session was loaded in the parent process",
                hint="start the child with the 'spawn' method, or load only in the child",
            )
        raise Closed("the session is closed", hint="load the bundle again")

    def warm_up(
        self, static_shapes: Sequence[Shapes], example: Mapping[str, NDArray[Any]] | None
    ) -> None:
        """Make the first call as fast as the tenth, for every shape that is known beforehand.

        `example` is kept as the input of `benchmark`.
        """
        for shapes in static_shapes:
            self._run(_zeros(self.inputs, shapes), None, {})
        if example is not None:
            self._example = example
            for _ in range(2):
                self._run(example, None, {})
        self._lanes.keep()

    def report(self) -> dict[str, Any]:
        """What really runs here: variant, runtime, device, precision, threads, self-test error.

        The value is plain JSON data and belongs to the caller.
        """
        return {
            key: (value.copy() if isinstance(value, (dict, list)) else value)
            for key, value in self._report.items()
        }

    def count_anew(self) -> None:
        """Let `health` forget the calls so far, such as those made while loading."""
        self._monitor.begin()

    def health(self, stale_after_s: float | None = None) -> Health:
        """How this session is: OK, WARN, ERROR or STALE, why, and what it has done.

        It reads files of the system, which takes some milliseconds: ask once a second, not in
        the frame loop. Counts begin at the end of `load`; calls of `benchmark` count, too.

        Args:
            stale_after_s: seconds without a call after which the session is stale; None: never.

        Raises:
            UsageError: `stale_after_s` is no time above 0.
        """
        frames: list[FrameCounts] = []
        fault = "the session is closed" if self._unusable else ""
        if self._forked:
            fault = "the session was loaded in the parent process"
        else:
            with self._lock:
                opened = list(self._streams)
            frames += [each.counts for each in opened if isinstance(each, Pipeline)]
        return self._monitor.look(self._report, frames, fault, stale_after_s)

    def benchmark(self, seconds: float = 5.0) -> Timing:
        """Time `run` on a golden sample, one call at a time on this thread.

        Of a model with states, steps of one stream; where a state is at its end the stream is
        reset.

        Raises:
            UsageError: `seconds` is not positive.
        """
        example = self._example
        if example is None:
            example = _zeros(self.inputs, self._face.smallest())
        if self._fed is None:
            return time_calls(lambda: self.run(example), seconds=seconds)
        frame = {spec.name: example[spec.name] for spec in self._fed.inputs}
        with self.stream() as stream:
            step = endless(lambda: stream.step(frame), stream.reset)
            return time_calls(step, seconds=seconds)

    def close(self) -> None:
        """Give everything back. Calls that are running finish; later ones raise Closed."""
        self._unusable = True
        engine, self._engine = self._engine, None
        self._lanes.ready = {}
        with self._lock:
            streams = list(self._streams)
        for stream in streams:
            stream.end()
        self._watchdog.close()
        if engine is not None:
            engine.close()

    def __enter__(self) -> Session:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        value: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()


def _zeros(
    inputs: Sequence[TensorSpec], shapes: Mapping[str, tuple[int, ...]]
) -> dict[str, NDArray[Any]]:
    return {spec.name: np.zeros(shapes[spec.name], spec.dtype) for spec in inputs}


def _mark_forked() -> None:
    for session in list(_LIVE):
        session._forked = session._unusable = True  # noqa: SLF001 - one module
        session._lanes.ready = {}  # noqa: SLF001
        # The locks of the old ones may be held by threads that are not here.
        session._monitor = Monitor()  # noqa: SLF001
        session._calls = session._monitor.calls  # noqa: SLF001
        for stream in list(session._streams):  # noqa: SLF001
            stream.end()


def _close_all() -> None:
    close_all([session.close for session in list(_LIVE) if not session._forked])  # noqa: SLF001


os.register_at_fork(after_in_child=_mark_forked)
atexit.register(_close_all)
