"""The state of one stream, and the vendor requests that carry it from step to step."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from numpy.typing import NDArray

from edgebm.errors import StateError
from edgebm.runtime.answer import Answer
from edgebm.runtime.buffers import fill_buffers
from edgebm.runtime.engines import Engine, Request
from edgebm.runtime.input_faults import first_not_finite
from edgebm.runtime.states import States

Array = NDArray[Any]
Shapes = tuple[tuple[int, ...], ...]
Quick = Callable[[Array], Answer | None]
_MAX_SHAPES = 16
KEPT = "the stream stands where it stood before this step; reset() starts it anew"


class Step:
    """A vendor request for one set of shapes, as seen by who feeds only what is no state."""

    __slots__ = ("bound", "carry", "doubtful", "inputs", "names", "positions", "request", "watch")

    def __init__(self, request: Request, states: States) -> None:
        self.request = request
        # Where the device has memory of its own, the states stay there from step to step.
        self.carry = request.carry
        fed = {state.input_index for state in states.states}
        made = {state.output_index for state in states.states}
        self.inputs = tuple(x for k, x in enumerate(request.inputs) if k not in fed)
        self.names = tuple(spec.name for spec in states.outputs)
        count = len(self.names) + len(made)
        self.positions = tuple(k for k in range(count) if k not in made)
        self.watch = states.face.watch(self.inputs)
        self.doubtful = self.watch.doubtful
        # The state arrays that the request reads, where they change from step to step.
        self.bound: object = None

    def take(self, arrays: Sequence[Array]) -> bool:
        """Copy the inputs in; whether a value may be odd or out of range."""
        for own, array in zip(self.inputs, arrays):  # noqa: B905 - equal lengths; this is hot
            own[...] = array
        return self.doubtful()

    def answer(self, outputs: Sequence[Array], out: Mapping[str, Array] | None) -> Answer:
        """The outputs that are no state, as arrays of the caller's."""
        found = zip(self.names, [outputs[k] for k in self.positions], strict=True)
        if out is not None:
            return fill_buffers(out, found)
        return Answer({name: array.copy() for name, array in found})


class Feedback(ABC):
    """The state of a stream: `values` in the order of `states.states`, read by the next step.

    `settled` is whether a step or given states have decided the shared axes. `quick` has, by the
    shape of the only input, the whole step as one call: outputs by name, or None when the values
    deserve a closer look and nothing was run. One thread at a time.
    """

    values: tuple[Array, ...] = ()

    def __init__(self, states: States, engine: Engine) -> None:
        self.states = states
        self.settled = False
        self.quick: dict[tuple[int, ...], Quick] = {}
        self._ready: dict[tuple[int, ...], Quick] = {}
        self._engine = engine
        self._steps: dict[Shapes, Step] = {}
        # The step whose device holds `values`, if there is one.
        self._holder: Step | None = None
        self.reset()

    def reset(self) -> None:
        """Back to the initial values; the next step may choose the shared axes anew."""
        self.put(self.states.start(self.states.first_sizes(self.sizes())), settled=False)

    def put(self, arrays: Sequence[Array], *, settled: bool) -> None:
        """Go on from these values, whose dtypes and shapes have been checked."""
        self._keep(arrays)
        self.settled = settled
        self.quick = self._ready if settled or not self.states.shared else {}

    def sizes(self) -> dict[str, int]:
        """The sizes of the shared axes in `values`."""
        return self.states.sizes([array.shape for array in self.values])

    def knows(self, shapes: Shapes) -> bool:
        """Whether inputs of these shapes were checked before and are still allowed."""
        return shapes in self._steps and (self.settled or not self.states.shared)

    def step_for(self, shapes: Shapes) -> Step:
        """The request for inputs of these shapes, which fit the sizes that are settled.

        Raises:
            InputShape: they are another size than stored initial states have.
        """
        if not self.settled and self.states.shared:
            sizes = self.states.input_sizes(shapes)
            if sizes != self.sizes():
                self._keep(self.states.start(sizes))
        step = self._steps.get(shapes)
        if step is None:
            while len(self._steps) >= _MAX_SHAPES:
                oldest = next(iter(self._steps))
                del self._steps[oldest]
                self._ready.pop(oldest[0], None)
            step = self._steps[shapes] = self._step(shapes)
        return step

    def advance(self, step: Step, out: Mapping[str, Array] | None) -> Answer:
        """Run `step` on what it has taken, and keep the new state if it can be kept.

        Raises:
            StateError: a state is at its bound, or comes out unfit; the old one is kept.
            InputShape: a buffer in `out` has another shape; the old one is kept.
        """
        self._check_before()
        outputs, after = self._infer(step)
        answer = step.answer(outputs, out)
        self._commit(after)
        if not self.settled:
            self.settled, self.quick = True, self._ready
        return answer

    def forget(self) -> None:
        """Drop every request; one that raised is not used again. The values stay."""
        self._steps.clear()
        self._ready.clear()
        self._holder = None

    def _hold(self, step: Step | None) -> None:
        """Note that the values are what the last run of `step` gave; None: they came from here.

        The device of another step that held them before holds old ones now.
        """
        if self._holder is not None and self._holder is not step and self._holder.carry:
            self._holder.carry.drop()
        self._holder = step
        if step is not None and step.carry:
            step.carry.keep()

    def _check_before(self) -> None:
        for k, limit in self.states.state_face.limits.items():
            array, state = self.values[k], self.states.states[k]
            if array.size and not (int(array.min()) >= 0 and int(array.max()) < limit):
                raise StateError(
                    f"state {state.spec.name!r} has left its table: it holds {int(array.max())}, "
                    f"the model has rows 0..{limit - 1}",
                    hint=KEPT,
                    details={"state": state.spec.name, "limit": limit},
                )

    @abstractmethod
    def _keep(self, arrays: Sequence[Array]) -> None:
        """Make copies of `arrays` the values, all at once."""

    @abstractmethod
    def _step(self, shapes: Shapes) -> Step: ...

    @abstractmethod
    def _infer(self, step: Step) -> tuple[tuple[Array, ...], Any]:
        """All outputs, and what `_commit` needs; raises before anything is lost."""

    @abstractmethod
    def _commit(self, after: Any) -> None: ...


def refuse_not_finite(states: States, arrays: Sequence[Array]) -> None:
    """Refuse states that would poison every step from here on.

    Raises:
        StateError: names each state, how many values it has that are NaN or infinite, and where.
    """
    bad = {
        state.output: found
        for state, array in zip(states.states, arrays, strict=True)
        if array.dtype.kind == "f" and (found := first_not_finite(array)) is not None
    }
    if bad:
        figures = [
            f"{name!r} has {count} values that are NaN or infinite, the first at {list(first)}"
            for name, (count, first) in bad.items()
        ]
        raise StateError(
            f"the step gives no usable state: {', '.join(figures)}",
            hint=KEPT,
            details={"states": {name: {"count": n, "first": f} for name, (n, f) in bad.items()}},
        )
