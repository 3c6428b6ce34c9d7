"""One vendor request with the checks of its values prepared."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from math import isfinite
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgebm.runtime.checks import Face
from edgebm.runtime.engines import Request

Outputs = dict[str, NDArray[Any]]
# Below numpy's dispatch of foreign array types, which there are none of here.
vdot: Callable[[NDArray[Any], NDArray[Any]], float] = getattr(np.vdot, "_implementation", np.vdot)
# BLAS stays on the calling thread for vectors of this length.
_SMALL = 4096


class Slot:
    """A vendor request with everything a call needs looked up beforehand.

    `quick(array)` is the whole call for a model with one input: outputs by name, or None when
    the values deserve a closer look and nothing was run.
    """

    __slots__ = ("indices", "inputs", "large", "names", "quick", "request", "small")

    def __init__(self, request: Request, face: Face, outputs: Sequence[str]) -> None:
        self.request = request
        self.inputs = request.inputs
        self.names = outputs
        self.small: list[NDArray[Any]] = []
        self.large: list[tuple[NDArray[Any], NDArray[np.bool_]]] = []
        self.indices: list[tuple[NDArray[Any], int]] = []
        for index, array in enumerate(request.inputs):
            self._prepare(array, face.limits.get(index))
        self.quick = _quick(self) or self._general

    def _prepare(self, array: NDArray[Any], limit: int | None) -> None:
        flat = array.reshape(-1)
        if array.dtype.kind == "f" and (flat.size > _SMALL or array.dtype.itemsize == 2):
            self.large.append((flat, np.empty(flat.shape, np.bool_)))
        elif array.dtype.kind == "f":
            self.small.append(flat)
        elif limit is not None and flat.size:
            # Seen as unsigned, a negative index is a huge one: one comparison does.
            self.indices.append((flat.view(f"u{array.dtype.itemsize}"), limit))

    def take(self, arrays: Sequence[NDArray[Any]]) -> bool:
        """Copy the inputs in; whether one may be NaN, infinite or out of range.

        True is a suspicion only: the square of a large finite value overflows, too.
        """
        for bound, array in zip(self.inputs, arrays):  # noqa: B905 - equal lengths; this is hot
            bound[...] = array
        for flat in self.small:
            # A sum of squares is finite only if every term is; `dot` would warn of an overflow.
            if not isfinite(vdot(flat, flat)):
                return True
        for values, mask in self.large:
            np.isfinite(values, out=mask)
            if not mask.all():
                return True
        return bool(self.indices) and self._outside()

    def _outside(self) -> bool:
        return any(int(values.max()) >= limit for values, limit in self.indices)

    def answer(self) -> Outputs:
        """Run on what `take` copied in; the arrays belong to the caller."""
        self.request.infer()
        found = zip(self.names, self.request.outputs)  # noqa: B905 - equal lengths; this is hot
        return {name: array.copy() for name, array in found}

    def _general(self, array: NDArray[Any]) -> Outputs | None:
        return None if self.take((array,)) else self.answer()


def _quick(slot: Slot) -> Callable[[NDArray[Any]], Outputs | None] | None:
    """The call of a small model in as few steps as Python allows; None if this is no such model.

    Around a model that takes ten microseconds, each look-up and each loop over one element shows.
    """
    fixed = slot.request.fixed
    if len(slot.inputs) != 1 or len(slot.small) != 1 or fixed is None or len(fixed) != 1:
        return None
    (bound,), (name,), (output,) = slot.inputs, slot.names, fixed
    (flat,) = slot.small
    infer, copy = slot.request.infer, output.copy

    def call(array: NDArray[Any]) -> Outputs | None:
        bound[...] = array
        if not isfinite(vdot(flat, flat)):
            return None
        infer()
        return {name: copy()}

    return call
