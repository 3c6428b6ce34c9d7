"""Copies of the inputs of frames, in arrays that are used again."""

from __future__ import annotations

from collections import deque
from typing import Any

import numpy as np

from edgebm.runtime.checks import Face
from edgebm.runtime.frames import Frame, Inputs
from edgebm.runtime.slots import fixed_shapes, plain_shapes

Shapes = tuple[tuple[int, ...], ...]


class FrameBuffers:
    """`count` sets of arrays for shapes that repeat; one for shapes that were seen once."""

    def __init__(self, face: Face, count: int) -> None:
        self._face, self._count = face, count
        self._free: deque[Inputs] = deque(maxlen=count)
        self._made = 0
        self._shapes = fixed_shapes(face.specs)
        if self._shapes is not None:
            self._make(self._shapes, count)

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
                self._made = 0
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

    def _take(self, shapes: Shapes) -> Inputs:
        if self._made < self._count:
            self._make(shapes, 1 if self._made == 0 else self._count - self._made)
        while self._free:
            inputs = self._free.pop()
            # One of other shapes may have come back since they changed.
            if tuple(array.shape for array in inputs.values()) == shapes:
                return inputs
        return self._new(shapes)

    def _make(self, shapes: Shapes, count: int) -> None:
        self._free.extend(self._new(shapes) for _ in range(count))
        self._made += count

    def _new(self, shapes: Shapes) -> Inputs:
        described = zip(self._face.names, shapes, self._face.dtypes, strict=True)
        inputs = {name: np.empty(shape, dtype) for name, shape, dtype in described}
        for array in inputs.values():
            # The memory is there from now on, not from the first frame that is copied here.
            array.fill(0)
        return inputs
