"""A loaded bundle that answers: our checks, pre-bound vendor tensors, answers the caller owns."""

from __future__ import annotations

import threading
import weakref
from collections.abc import Mapping, Sequence
from types import TracebackType
from typing import TYPE_CHECKING, Any, NoReturn, TypeVar

from numpy import ndarray
from numpy.typing import NDArray

from edgebm.errors import StateError
from edgebm.runtime.answer import Answer
from edgebm.runtime.bench import Timing, endless, time_calls
from edgebm.runtime.call_path import CallPath
from edgebm.runtime.checks import MISSING, Face
from edgebm.runtime.engines import Engine
from edgebm.runtime.health import Health, Monitor
from edgebm.runtime.leaving import watch
from edgebm.runtime.snapshot import identity
from edgebm.runtime.states import States
from edgebm.runtime.values import ValueRules
from edgebm.spec import Manifest, Shapes, StateSpec, TensorSpec

if TYPE_CHECKING:
    from edgebm.runtime.background import BackgroundBuild
    from edgebm.runtime.frame_rules import Drop, OnResult
    from edgebm.runtime.frames import FrameCounts
    from edgebm.runtime.pipeline import Pipeline
    from edgebm.runtime.stream import Stream

_Either = TypeVar("_Either", "Stream", "Pipeline")
_SETTLE_CALLS, _SETTLE_S = 12, 0.005  # calls, and the time for all of them, at most


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
        self._streams: weakref.WeakSet[Stream] = weakref.WeakSet()
        self._pipelines: weakref.WeakSet[Pipeline] = weakref.WeakSet()
        # Of a model with one input; no array has a dtype of None.
        single = len(self.inputs) == 1
        self._name = self._face.names[0] if single else ""
        self._dtype = self._face.dtypes[0] if single else None
        self._lock = threading.Lock()
        self._example: Mapping[str, NDArray[Any]] | None = None
        self._example_s = _SETTLE_S
        self._monitor = Monitor()
        # Calls read these without a lock. What they have read they keep to the end, so a session
        # that goes over to another engine mixes nothing.
        self._path = CallPath(self._face, manifest.outputs, engine, self._monitor.calls, report)
        self._lanes = self._path.lanes
        self._build: BackgroundBuild | None = None
        watch(self)

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
            return self._path.counted(inputs, out, deadline_ms, named)
        # A plain array for a model with one input: what `CallPath.answer` does, without its
        # detours.
        given = inputs if not named else named if inputs is MISSING else None
        array = given.get(self._name) if type(given) is dict and len(given) == 1 else given
        if type(array) is ndarray and array.dtype is self._dtype and out is None:
            try:
                lane = self._lanes.ready[array.shape]
                slot = lane.pop()
            except (KeyError, IndexError):
                return self._path.counted(inputs, out, None, named)
            try:
                answer = slot.quick(array)
            except Exception as error:
                self._path.calls.failed(error)
                raise
            lane.append(slot)
            if answer is not None:
                return answer
        return self._path.counted(inputs, out, None, named)

    def stream(self) -> Stream:
        """A new stream, which carries the states of the model from step to step.

        Raises:
            StateError: the model has no states.
            Closed, ForkedUse: the session cannot be used here.
        """
        path = self._path
        engine = path.engine()
        if self._fed is None:
            raise StateError(
                "the model has no states to carry from step to step: run() is all it needs",
                hint="compress it with --state INPUT:OUTPUT, or a model of sequences with "
                "--streaming",
            )
        model = identity(path.report, [state.spec for state in self._fed.states])
        # Streams and frame loops are imported where they are used: most programs use one at most.
        from edgebm.runtime.stream import Stream

        stream = Stream(self._fed, engine, model, self._refuse, path.calls)
        return self._watch(stream, self._streams)

    def _watch(self, opened: _Either, among: weakref.WeakSet[_Either]) -> _Either:
        with self._lock:
            among.add(opened)
        if self._path.has_ended:
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
        if self._path.has_ended:
            self._refuse()
        from edgebm.runtime.frame_rules import FrameRules
        from edgebm.runtime.pipeline import Pipeline

        rules = FrameRules(depth, drop, deadline_ms, on_result)
        pipeline = Pipeline(self._face, self.run, self._refuse, rules)
        return self._watch(pipeline, self._pipelines)

    def _refuse(self) -> NoReturn:
        # Streams and pipelines have this method, and with it the session, which they need.
        self._path.refuse()

    def warm_up(
        self, static_shapes: Sequence[Shapes], example: Mapping[str, NDArray[Any]] | None
    ) -> None:
        """Make the first call as fast as the tenth, for every shape that is known beforehand.

        `example` is kept as the input of `benchmark`.
        """
        self._example = example
        self._example_s = self._path.warm_up(static_shapes, example) or _SETTLE_S

    def settle(self) -> None:
        """Make the first call as fast as later ones, after all else that a start has done.

        Caches forget a small model within a millisecond, and Python makes its code fast where it
        has run a few times. `health` forgets these calls and those before.
        """
        if (example := self._example) is not None:
            for _ in range(min(_SETTLE_CALLS, int(_SETTLE_S / max(self._example_s, 1e-6)))):
                self.run(example)
        self._monitor.begin()

    def report(self) -> dict[str, Any]:
        """What really runs here: variant, runtime, device, precision, threads, self-test error.

        The value is plain JSON data and belongs to the caller.
        """
        build, report = self._build, self._path.report
        return {
            key: (value.copy() if isinstance(value, (dict, list)) else value)
            for key, value in (report | (build.told(report) if build else {})).items()
        }

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
        fault = "the session is closed" if self._path.has_ended else ""
        if self._path.is_forked:
            fault = "the session was loaded in the parent process"
        else:
            with self._lock:
                pipelines = list(self._pipelines)
            frames += [each.counts for each in pipelines]
        return self._monitor.look(self.report(), frames, fault, stale_after_s)

    def benchmark(self, seconds: float = 5.0) -> Timing:
        """Time `run` on a golden sample, one call at a time on this thread.

        Of a model with states, steps of one stream; where a state is at its end the stream is
        reset.

        Raises:
            UsageError: `seconds` is not positive.
        """
        example = self._example
        if example is None:
            example = self._face.zeros()
        if self._fed is None:
            return time_calls(lambda: self.run(example), seconds=seconds)
        frame = {spec.name: example[spec.name] for spec in self._fed.inputs}
        with self.stream() as stream:
            step = endless(lambda: stream.step(frame), stream.reset)
            return time_calls(step, seconds=seconds)

    def close(self) -> None:
        """Give everything back. Calls that are running finish; later ones raise Closed."""
        with self._lock:
            self._path.end()
            opened: list[Stream | Pipeline] = [*self._streams, *self._pipelines]
        for each in opened:
            each.end()
        if self._build is not None:
            self._build.cancel()
        self._path.close()

    def improve(self, build: BackgroundBuild) -> None:
        """Begin a build whose engine shall answer in place of this one.

        Raises:
            ResourceError: no thread can be started.
        """
        build.start()
        self._build = build

    def go_over_to(self, other: Session) -> bool:
        """Answer by the engine of `other` from the next call on; that session ends.

        Calls that are running and open streams stay with the engine that they began with.

        Returns:
            Whether it does; not if it was closed meanwhile.

        Raises:
            BackendError: the engine fails.
        """
        path = other._path.behind(self._path)
        with self._lock:
            former, is_open = self._path, not self._path.has_ended
            if is_open:
                self._path = path
                self._lanes = path.lanes
        if is_open:
            former.retire()
        else:
            path.close()
        return is_open

    def disown(self) -> None:
        """What happens in a forked child, where nothing of a session may be used."""
        # The locks of the old ones may be held by threads that are not here, and so may a build.
        self._build = None
        self._monitor = Monitor()
        self._path.abandon(self._monitor.calls)
        opened: list[Stream | Pipeline] = [*self._streams, *self._pipelines]
        for each in opened:
            each.end()

    def __enter__(self) -> Session:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        value: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()
