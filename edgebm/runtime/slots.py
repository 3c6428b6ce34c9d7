"""One vendor request with the checks of its values prepared."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgebm.runtime.checks import Face
from edgebm.runtime.engines import Request

# BLAS stays on the calling thread for vectors of this length.
_SMALL = 4096


class Slot:
    """A vendor request with everything a call needs looked up beforehand."""

    __slots__ = ("indices", "inputs", "large", "request", "small")

    def __init__(self, request: Request, face: Face) -> None:
        self.request = request
        self.inputs = request.inputs
        self.small: list[tuple[Any, NDArray[Any]]] = []
        self.large: list[tuple[NDArray[Any], NDArray[np.bool_]]] = []
        self.indices: list[tuple[NDArray[Any], int]] = []
        for index, array in enumerate(request.inputs):
            flat = array.reshape(-1)
            if array.dtype.kind == "f" and (flat.size > _SMALL or array.dtype.itemsize == 2):
                self.large.append((flat, np.empty(flat.shape, np.bool_)))
            elif array.dtype.kind == "f":
                self.small.append((flat.dot, flat))
            elif index in face.limits and flat.size:
                # Seen as unsigned, a negative index is a huge one: one comparison does.
                unsigned = flat.view(f"u{array.dtype.itemsize}")
                self.indices.append((unsigned, face.limits[index]))

    def suspicious(self) -> bool:
        """Whether a value may be NaN, infinite or out of range; a finite overflow is, too."""
        for dot, flat in self.small:
            # A sum of squares is finite only if every term is.
            if not math.isfinite(dot(flat)):
                return True
        for values, mask in self.large:
            np.isfinite(values, out=mask)
            if not mask.all():
                return True
        return any(int(values.max()) >= limit for values, limit in self.indices)
