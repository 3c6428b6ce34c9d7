"""A stream: a session that carries the recurrent state of a model from step to step."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from time import perf_counter
from types import TracebackType
from typing import Any, NoReturn

from numpy import ndarray
from numpy.typing import NDArray

from edgebm.errors import BackendError, Busy, Closed, StateError
from edgebm.runtime.answer import Answer, Doubt
from edgebm.runtime.buffers import check_buffers
from edgebm.runtime.calls import CallLog
from edgebm.runtime.checks import MISSING
from edgebm.runtime.engines import Engine
from edgebm.runtime.feedback import Feedback
from edgebm.runtime.feedback_fixed import FixedFeedback
from edgebm.runtime.feedback_growing import GrowingFeedback
from edgebm.runtime.input_faults import first_not_finite, raise_faults
from edgebm.runtime.slots import fixed_shapes, plain_shapes
from edgebm.runtime.snapshot import pack, unpack
from edgebm.runtime.states import States


class Stream:
    """One stream of a session, made by `Session.stream`: independent of all others.

    Threads may share a session, each with streams of its own. Two threads that use one stream at
    the same time get `Busy`, never a mixed answer. `inputs` and `outputs` are those of the model
    that are no state.
    """

    def __init__(
        self,
        states: States,
        engine: Engine,
        model: bytes,
        session: Callable[[], NoReturn],
        calls: CallLog,
    ) -> None:
        self.inputs, self.outputs = states.inputs, states.outputs
        self._states = states
        self._face = states.face
        self._model = model
        self._session_refuses = session
        self._calls = calls
        self._closed = self._session_ended = False
        single = len(self.inputs) == 1
        self._name = self.inputs[0].name if single else ""
        # No array has a dtype of None.
        self._dtype = self._face.dtypes[0] if single else None
        kind = GrowingFeedback if states.growing else FixedFeedback
        feedback: Feedback = kind(states, engine)
        # Where no size is free, the request is made now.
        if shapes := fixed_shapes(self.inputs):
            feedback.step_for(shapes)
        # Whoever takes the only element out owns the stream; `close` puts another list here.
        self._idle = [feedback]

    def step(
        self,
        inputs: Any = MISSING,
        /,
        *,
        out: Mapping[str, NDArray[Any]] | None = None,
        **named: NDArray[Any],
    ) -> Answer:
        """Answer one frame: `step(x)`, `step({"x": x})` or `step(x=x)`.

        The first step settles the size of a free axis that states share with inputs, such as the
        batch, until `reset`. After an error the stream goes on from the last good state.

        Args:
            inputs: an array for a model with one input that is no state, or a mapping.
            out: arrays to write outputs to, as in `Session.run`.
            named: inputs by keyword.

        Returns:
            The outputs that are no state by name, in the order of `outputs`. The arrays belong to
            the caller.

        Raises:
            InputError: a sub-class says what is wrong with the inputs or with `out`.
            StateError: the new state is not finite, or a state is at the end of its range.
            Busy: another thread is using this stream.
            Closed, ForkedUse: the stream cannot be used here.
            BackendFailed: the vendor runtime raised.
        """
        began_s = perf_counter()
        idle = self._idle
        try:
            feedback = idle.pop()
        except IndexError:
            self._refuse()
        try:
            # A plain array for a model with one input: the same as `_step`, without its detours.
            given = inputs if not named else named if inputs is MISSING else None
            array = given.get(self._name) if type(given) is dict and len(given) == 1 else given
            if type(array) is ndarray and array.dtype is self._dtype and out is None:
                quick = feedback.quick.get(array.shape)
                if quick is not None and (answer := quick(array)) is not None:
                    self._calls.answered(began_s)
                    return answer
            answer = self._step(feedback, inputs, out, named)
        except Exception as error:
            self._calls.failed(error)
            if isinstance(error, BackendError):
                feedback.forget()
            raise
        finally:
            idle.append(feedback)
        self._calls.answered(began_s)
        return answer

    def _step(
        self,
        feedback: Feedback,
        inputs: Any,
        out: Mapping[str, NDArray[Any]] | None,
        named: Mapping[str, Any],
    ) -> Answer:
        face = self._face
        arrays = face.pick(inputs, named)
        shapes = plain_shapes(arrays, face.dtypes)
        if shapes is None or not feedback.knows(shapes):
            arrays = face.check(arrays, feedback.sizes() if feedback.settled else None)
            shapes = tuple(array.shape for array in arrays)
        if out is not None:
            check_buffers(out, self.outputs)
        step = feedback.step_for(shapes)
        doubts: tuple[Doubt, ...] = ()
        if step.take(arrays):
            faults, doubts = face.examine(step.inputs)
            raise_faults(faults)
        answer = feedback.advance(step, out)
        if doubts:
            answer.doubts = doubts
            self._calls.doubtful()
        return answer

    @property
    def states(self) -> dict[str, NDArray[Any]]:
        """The states that the next step reads, by the name of their input: read-only copies."""
        with _Owned(self) as feedback:
            copies = [array.copy() for array in feedback.values]
        for copy in copies:
            copy.flags.writeable = False
        return {s.spec.name: x for s, x in zip(self._states.states, copies, strict=True)}

    def reset(self, states: Mapping[str, NDArray[Any]] | None = None) -> None:
        """Begin anew: from the model's initial states, or from `states`, an array for each.

        Raises:
            InputError: a state is missing, or has another dtype, shape or values that are not
                finite. The stream stays as it was.
        """
        with _Owned(self) as feedback:
            if states is None:
                feedback.reset()
                return
            face = self._states.state_face
            feedback.put(face.check(face.pick(states, {})), settled=True)

    def snapshot(self) -> bytes:
        """The state as bytes, for `restore` on any stream of the same bundle and variant."""
        with _Owned(self) as feedback:
            begun = feedback.settled or not self._states.shared
            return pack(self._model, feedback.values if begun else ())

    def restore(self, snapshot: bytes) -> None:
        """Go on from where `snapshot` was taken.

        Raises:
            StateError: no snapshot, a damaged one, or one of another model. The stream stays as
                it was.
        """
        specs = [state.spec for state in self._states.states]
        arrays = unpack(snapshot, self._model, specs)
        fault = self._states.misfit([array.shape for array in arrays], {}) if arrays else ""
        if any(x.dtype.kind == "f" and first_not_finite(x) for x in arrays):
            fault = fault or "values are not finite"
        if fault:
            raise StateError(f"the snapshot holds no states of this model: {fault}")
        with _Owned(self) as feedback:
            if arrays:
                feedback.put(arrays, settled=True)
            else:
                feedback.reset()

    def close(self) -> None:
        """Give the vendor request back. A step that is running finishes; later ones raise."""
        self._closed = True
        self._idle = []

    def end(self) -> None:
        """What the session calls when it closes, or finds itself in a forked child."""
        self._session_ended = True
        self._idle = []

    def __enter__(self) -> Stream:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        value: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def _refuse(self) -> NoReturn:
        if self._session_ended:
            self._session_refuses()
        if self._closed:
            raise Closed("the stream is closed", hint="session.stream() opens another")
        raise Busy(
            "another thread is using this stream",
            hint="a stream is a sequence: give each thread a stream of its own",
        )


class _Owned:
    """The state of a stream, taken out so that no one else can touch it meanwhile."""

    def __init__(self, stream: Stream) -> None:
        self._stream = stream

    def __enter__(self) -> Feedback:
        self._idle = self._stream._idle  # noqa: SLF001 - one module
        try:
            self._feedback = self._idle.pop()
        except IndexError:
            self._stream._refuse()  # noqa: SLF001
        return self._feedback

    def __exit__(
        self,
        kind: type[BaseException] | None,
        value: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._idle.append(self._feedback)
