"""Copies of the inputs of frames, in arrays that are used again."""

from __future__ import annotations

from collections import deque
from typing import Any

import numpy as np

from edgebm.runtime.checks import Face
from edgebm.runtime.frames import Frame, Inputs
from edgebm.runtime.slots import plain_shapes


class FrameBuffers:
    """At most `spare` sets of arrays wait to be used again, all of the shapes seen last."""

    def __init__(self, face: Face, spare: int) -> None:
        self._face = face
        self._shapes: tuple[tuple[int, ...], ...] | None = None
        self._free: deque[Inputs] = deque(maxlen=spare)

    def copy(self, inputs: Any) -> Inputs:
        """Copies by name, which the caller of `push` cannot change any more.

        Values are left to `Session.run`, which looks at the copies, where the arrays are plain
        and their shapes known. One thread at a time.

        Raises:
            InputError: a sub-class says what is wrong with names, types, dtypes or shapes.
        """
        arrays = self._face.pick(inputs, {})
        shapes = plain_shapes(arrays, self._face.dtypes)
        if shapes is None or shapes != self._shapes:
            arrays = self._face.check(arrays)
            shapes = tuple(array.shape for array in arrays)
            if shapes != self._shapes:
                self._shapes = shapes
                self._free.clear()
        copies = self._take(shapes)
        for copy, array in zip(copies.values(), arrays, strict=True):
            copy[...] = array
        return copies

    def give_back(self, frame: Frame) -> None:
        """The frame's inputs are not needed any more."""
        inputs, frame.inputs = frame.inputs, None
        if inputs is not None:
            self._free.append(inputs)

    def _take(self, shapes: tuple[tuple[int, ...], ...]) -> Inputs:
        while self._free:
            inputs = self._free.pop()
            # One of other shapes may have come back since they changed.
            if tuple(array.shape for array in inputs.values()) == shapes:
                return inputs
        face = self._face
        described = zip(face.names, shapes, face.dtypes, strict=True)
        return {name: np.empty(shape, dtype) for name, shape, dtype in described}
