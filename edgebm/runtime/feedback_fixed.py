"""States of fixed shape, fed back in place."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial

import numpy as np

from edgebm.runtime.answer import Answer
from edgebm.runtime.engines import Buffers, aligned_zeros
from edgebm.runtime.feedback import Array, Feedback, Quick, Shapes, Step, refuse_not_finite
from edgebm.runtime.values import ValueCheck, Watch

_ALIGNMENT = 64
_FINITE = ValueCheck(finite=True)


class _Block:
    """Arrays side by side in one piece of memory: one copy and one check for all of them."""

    def __init__(self, arrays: Sequence[Array]) -> None:
        starts, size = [], 0
        for array in arrays:
            starts.append(size)
            size += -(-array.nbytes // _ALIGNMENT) * _ALIGNMENT
        self.raw = aligned_zeros((size,), np.dtype(np.uint8))
        self.arrays = tuple(
            self.raw[start : start + array.nbytes].view(array.dtype).reshape(array.shape)
            for start, array in zip(starts, arrays, strict=True)
        )

    def watch(self) -> Watch:
        kinds = {array.dtype for array in self.arrays}
        if len(kinds) == 1 and (kind := kinds.pop()).kind == "f":
            return Watch([(self.raw.view(kind), _FINITE)])
        return Watch((x, _FINITE if x.dtype.kind == "f" else None) for x in self.arrays)


class FixedFeedback(Feedback):
    """States of fixed shape: the vendor reads one block and writes another.

    The new state is copied over the old one when it was found to be good, in one piece: nothing
    can come in between. Where a device keeps the states, the blocks follow what it has.
    """

    _before: _Block | None = None

    def _keep(self, arrays: Sequence[Array]) -> None:
        shapes = [array.shape for array in arrays]
        if self._before is None or shapes != [array.shape for array in self.values]:
            self.forget()
            self._before, self._after = _Block(arrays), _Block(arrays)
            self._watch = self._after.watch()
            self.values = self._before.arrays
        for own, array in zip(self._after.arrays, arrays, strict=True):
            own[...] = array
        self._commit(None)

    def _step(self, shapes: Shapes) -> Step:
        states = self.states
        buffers = Buffers(
            {s.spec.name: x for s, x in zip(states.states, self.values, strict=True)},
            {s.output: x for s, x in zip(states.states, self._after.arrays, strict=True)},
            states.fed,
        )
        named = states.input_shapes(shapes, self.values)
        step = Step(self._engine.request(named, buffers), states)
        quick = self._quick(step)
        if quick is not None:
            self._ready[shapes[0]] = quick
        return step

    def _infer(self, step: Step) -> tuple[tuple[Array, ...], Step]:
        step.request.infer()
        if self._watch.doubtful():
            refuse_not_finite(self.states, self._after.arrays)
        return step.request.outputs, step

    def _commit(self, after: Step | None) -> None:
        assert self._before is not None
        self._before.raw[...] = self._after.raw
        self._hold(after)

    def _quick(self, step: Step) -> Quick | None:
        """The step of a small model in as few steps as Python allows; None if it is no such."""
        fixed, doubtful, unfit = step.request.fixed, step.watch.quick(), self._watch.quick()
        if fixed is None or len(step.inputs) != 1 or len(step.names) != 1:
            return None
        if doubtful is None or unfit is None:
            return None
        if self.states.state_face.limits or self._before is None:
            return None
        (bound,), (name,) = step.inputs, step.names
        copy, infer, states = fixed[step.positions[0]].copy, step.request.infer, self.states
        before, after, made = self._before.raw, self._after.raw, self._after.arrays
        hold = partial(self._hold, step) if step.carry else None

        def call(array: Array) -> Answer | None:
            bound[...] = array
            if doubtful():
                return None
            infer()
            if unfit():
                refuse_not_finite(states, made)
            answer = Answer({name: copy()})
            before[...] = after
            if hold is not None:
                hold()
            return answer

        return call
