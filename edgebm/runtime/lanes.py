"""Idle vendor requests, by the shapes of the inputs that they are bound for."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Sequence
from typing import Any

from edgebm.runtime.calls import CallLog
from edgebm.runtime.checks import Arrays, Face
from edgebm.runtime.engines import Engine
from edgebm.runtime.slots import Slot, plain_shapes

Lane = deque[Slot]
_MAX_SHAPES = 16
_MAX_IDLE = 32


class Lanes:
    """Requests that wait for a call; whoever takes one out has it for itself.

    `ready` has them by the shape of the only input, or by the tuple of all shapes.
    """

    def __init__(self, face: Face, outputs: Sequence[str]) -> None:
        self._face, self._outputs = face, outputs
        self.ready: dict[tuple[Any, ...], Lane] = {}
        self._kept = 0
        self._lock = threading.Lock()

    def find(self, arrays: Sequence[Any]) -> Lane | None:
        """Idle requests for these shapes; None if the arrays need a closer look."""
        shapes = plain_shapes(arrays, self._face.dtypes)
        if shapes is None:
            return None
        return self.ready.get(shapes if len(shapes) != 1 else shapes[0])

    def admit(self, values: Sequence[Any]) -> tuple[Arrays, Lane]:
        """Check arrays that are not plain or have new shapes; make place for their requests.

        Raises:
            InputError: they are not fit for the model.
        """
        arrays = self._face.check(values)
        shapes = tuple(array.shape for array in arrays)
        key = shapes if len(shapes) != 1 else shapes[0]
        with self._lock:
            lane = self.ready.get(key)
            if lane is None:
                if len(self.ready) - self._kept >= _MAX_SHAPES:
                    # The first ones were made while loading: those are the expected shapes.
                    self.ready.pop(list(self.ready)[self._kept], None)
                lane = self.ready[key] = deque(maxlen=_MAX_IDLE)
        return arrays, lane

    def slot(self, engine: Engine, arrays: Arrays, calls: CallLog) -> Slot:
        """A new request for arrays of these shapes.

        Raises:
            BackendFailed: the vendor refuses it.
        """
        shapes = {name: array.shape for name, array in zip(self._face.names, arrays, strict=True)}
        return Slot(engine.request(shapes), self._face, self._outputs, calls)

    def keep(self) -> None:
        """Never give up the shapes that are there now."""
        self._kept = len(self.ready)
