"""States whose shape changes from step to step, such as a key-value cache."""

from __future__ import annotations

from collections.abc import Sequence

from edgebm.errors import StateError
from edgebm.runtime.engines import Buffers, aligned_empty
from edgebm.runtime.feedback import KEPT, Array, Feedback, Shapes, Step, refuse_not_finite


class GrowingFeedback(Feedback):
    """The outputs of each step are copied once and bound as the inputs of the next."""

    def _keep(self, arrays: Sequence[Array]) -> None:
        self.values = tuple(_aligned_copy(array) for array in arrays)
        self._hold(None)

    def _step(self, shapes: Shapes) -> Step:
        named = self.states.input_shapes(shapes, self.values)
        buffers = Buffers(fed=self.states.fed)
        return Step(self._engine.request(named, buffers, growing=True), self.states)

    def _check_before(self) -> None:
        super()._check_before()
        for axis, size in self.states.growing_sizes([x.shape for x in self.values]).items():
            low, high = self.states.axes[axis]
            if not low <= size <= high:
                raise StateError(
                    f"the stream is at its end: {axis} is {size}, the model takes {low} to {high}",
                    hint="reset() starts it anew; snapshot() and states still give what it holds",
                    details={"axis": axis, "size": size, "range": [low, high]},
                )

    def _infer(self, step: Step) -> tuple[tuple[Array, ...], tuple[Step, tuple[Array, ...]]]:
        if step.bound is not self.values:
            for state, array in zip(self.states.states, self.values, strict=True):
                step.request.bind(state.input_index, array)
            step.bound = self.values
        step.request.infer()
        outputs = step.request.outputs
        after = tuple(outputs[state.output_index] for state in self.states.states)
        if fault := self.states.misfit([x.shape for x in after], self.sizes()):
            raise StateError(f"the model gave a state of another shape: {fault}", hint=KEPT)
        refuse_not_finite(self.states, after)
        return outputs, (step, tuple(_aligned_copy(array) for array in after))

    def _commit(self, after: tuple[Step, tuple[Array, ...]]) -> None:
        step, self.values = after
        self._hold(step)
        if step.carry:
            step.bound = self.values


def _aligned_copy(array: Array) -> Array:
    made = aligned_empty(array.shape, array.dtype)
    made[...] = array
    return made
