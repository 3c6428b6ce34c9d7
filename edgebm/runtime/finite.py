"""Whether arrays that stay in place hold only values a model may see, asked before each call."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from math import isfinite
from typing import Any

import numpy as np
from numpy.typing import NDArray

# Below numpy's dispatch of foreign array types, which there are none of here.
vdot: Callable[[NDArray[Any], NDArray[Any]], float] = getattr(np.vdot, "_implementation", np.vdot)
# BLAS stays on the calling thread for vectors of this length.
_SMALL = 4096


class Watch:
    """Arrays with the checks of their values prepared.

    Each comes with the number of rows of the table that it indexes, or None. `small`, `large` and
    `indices` are the arrays by the way they are looked at, one-dimensional.
    """

    __slots__ = ("indices", "large", "small")

    def __init__(self, arrays: Iterable[tuple[NDArray[Any], int | None]]) -> None:
        self.small: list[NDArray[Any]] = []
        self.large: list[tuple[NDArray[Any], NDArray[np.bool_]]] = []
        self.indices: list[tuple[NDArray[Any], int]] = []
        for array, limit in arrays:
            flat = array.reshape(-1)
            if array.dtype.kind == "f" and (flat.size > _SMALL or array.dtype.itemsize == 2):
                self.large.append((flat, np.empty(flat.shape, np.bool_)))
            elif array.dtype.kind == "f":
                self.small.append(flat)
            elif limit is not None and flat.size:
                # Seen as unsigned, a negative index is a huge one: one comparison does.
                self.indices.append((flat.view(f"u{array.dtype.itemsize}"), limit))

    def doubtful(self) -> bool:
        """Whether a value may be NaN, infinite or out of range.

        True is a suspicion only: the square of a large finite value overflows, too.
        """
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
