"""One vendor request with the checks of its values prepared."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from time import perf_counter
from typing import Any

import numpy as np
from numpy import ndarray
from numpy.typing import NDArray

from edgebm.runtime.answer import Answer
from edgebm.runtime.buffers import fill_buffers
from edgebm.runtime.calls import OFTEN_S, CallLog
from edgebm.runtime.checks import Face
from edgebm.runtime.engines import Request
from edgebm.spec import TensorSpec


def plain_shapes(
    arrays: Sequence[Any], dtypes: Sequence[np.dtype[Any]]
) -> tuple[tuple[int, ...], ...] | None:
    """The shapes of `arrays`; None if one is no plain array of its dtype: see `Face.check`."""
    shapes = []
    for array, dtype in zip(arrays, dtypes):  # noqa: B905 - equal lengths; this is hot
        if type(array) is not ndarray:
            return None
        if array.dtype is not dtype and array.dtype != dtype:
            return None
        shapes.append(array.shape)
    return tuple(shapes)


def fixed_shapes(specs: Sequence[TensorSpec]) -> tuple[tuple[int, ...], ...] | None:
    """The shapes of inputs where none has a free axis."""
    shapes = tuple(tuple(d for d in spec.shape if isinstance(d, int)) for spec in specs)
    fixed = all(len(k) == len(spec.shape) for k, spec in zip(shapes, specs, strict=True))
    return shapes if fixed else None


class Slot:
    """A vendor request with everything a call needs looked up beforehand.

    `quick(array)` is the whole call for a model with one input, counted: outputs by name, or None
    when the values deserve a closer look and nothing was run.
    """

    __slots__ = ("doubtful", "inputs", "names", "quick", "request", "watch")

    def __init__(
        self, request: Request, face: Face, outputs: Sequence[str], calls: CallLog
    ) -> None:
        self.request = request
        self.inputs = request.inputs
        self.names = outputs
        self.watch = face.watch(request.inputs)
        self.doubtful = self.watch.doubtful
        self.quick = _quick(self, calls) or partial(self._general, calls)

    def take(self, arrays: Sequence[NDArray[Any]]) -> bool:
        """Copy the inputs in; whether a value may be odd or out of range."""
        for bound, array in zip(self.inputs, arrays):  # noqa: B905 - equal lengths; this is hot
            bound[...] = array
        return self.doubtful()

    def answer(self, out: Mapping[str, NDArray[Any]] | None) -> Answer:
        """What the last call made, in arrays of the caller's."""
        found = zip(self.names, self.request.outputs)  # noqa: B905 - equal lengths; this is hot
        if out is not None:
            return fill_buffers(out, found)
        return Answer({name: array.copy() for name, array in found})

    def let_go(self) -> None:
        """Be of no use any more: no call of its own holds it, so that memory is free at once."""
        del self.quick

    def _general(self, calls: CallLog, array: NDArray[Any]) -> Answer | None:
        began_s = perf_counter()
        if self.take((array,)):
            return None
        self.request.infer()
        answer = self.answer(None)
        calls.answered(began_s)
        return answer


def _quick(slot: Slot, calls: CallLog) -> Callable[[NDArray[Any]], Answer | None] | None:
    """The call of a small model in as few steps as Python allows; None if this is no such model.

    Around a model that takes ten microseconds, each look-up and each loop over one element shows.
    """
    fixed, doubtful = slot.request.fixed, slot.watch.quick()
    if len(slot.inputs) != 1 or doubtful is None or fixed is None or len(fixed) != 1:
        return None
    (bound,), (name,), (output,) = slot.inputs, slot.names, fixed
    infer, copy, clock = slot.request.infer, output.copy, perf_counter
    numbers, keep = calls.numbers, calls.keep
    skip, timed_s = 0, 0.0

    def call(array: NDArray[Any]) -> Answer | None:
        nonlocal skip, timed_s
        began_s = 0.0 if skip else clock()
        bound[...] = array
        if doubtful():
            return None
        infer()
        answer = Answer({name: copy()})
        number = next(numbers)
        if skip:
            skip -= 1
            return answer
        keep((number, began_s, clock()))
        skip = calls.skipped if began_s - timed_s < OFTEN_S else 0
        timed_s = began_s
        return answer

    return call
