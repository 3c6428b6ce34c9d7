"""Whether values of inputs are fit for the model: prepared once, asked before each call."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from math import isfinite
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from edgebm.errors import UsageError

Mode = Literal["error", "mark", "allow"]
_MODES = ("error", "mark", "allow")
# Below numpy's dispatch of foreign array types, which there are none of here.
vdot: Callable[[NDArray[Any], NDArray[Any]], float] = getattr(np.vdot, "_implementation", np.vdot)
least, greatest = np.minimum.reduce, np.maximum.reduce
# BLAS stays on the calling thread for vectors of this length.
_SMALL = 4096
# Of the width of what calibration saw: few hundred samples do not reach the ends of a
# distribution, and pixels that nobody divided by 255 are a hundred widths away.
_MARGIN = 0.5


@dataclass(frozen=True, slots=True)
class ValueRules:
    """What happens to inputs with odd values: refused, answered and marked, or let through.

    `nonfinite` is about NaN and infinite values, `envelope` about values further outside of the
    range that calibration saw than half the width of that range.

    Raises:
        UsageError: a rule is none of "error", "mark", "allow".
    """

    nonfinite: Mode = "error"
    envelope: Mode = "mark"

    def __post_init__(self) -> None:
        for label in ("nonfinite", "envelope"):
            value = getattr(self, label)
            if value not in _MODES:
                raise UsageError(f"{label} is {value!r}, it may be {', '.join(_MODES)}")


@dataclass(frozen=True, slots=True)
class ValueCheck:
    """What is looked at in one input; `rows` are those of the table that it indexes."""

    finite: bool = False
    bounds: tuple[float, float] | None = None
    rows: int | None = None


def widened(seen: tuple[float, float], dtype: np.dtype[Any]) -> tuple[float, float]:
    """The values that are not odd, given the smallest and largest that calibration saw."""
    low, high = seen
    margin = _MARGIN * (high - low)
    most = float(np.finfo(dtype).max)
    return max(low - margin, -most), min(high + margin, most)


class Watch:
    """Arrays that stay in place, each with what is looked at in it, or None.

    `small`, `large`, `bounded` and `indices` are the arrays by the way they are looked at,
    one-dimensional.
    """

    __slots__ = ("bounded", "indices", "large", "small")

    def __init__(self, arrays: Iterable[tuple[NDArray[Any], ValueCheck | None]]) -> None:
        self.small: list[NDArray[Any]] = []
        self.large: list[tuple[NDArray[Any], NDArray[np.bool_]]] = []
        self.bounded: list[tuple[NDArray[Any], Any, Any]] = []
        self.indices: list[tuple[NDArray[Any], int]] = []
        for array, check in arrays:
            flat = array.reshape(-1)
            if check is None or not flat.size:
                continue
            if check.rows is not None:
                # Seen as unsigned, a negative index is a huge one: one comparison does.
                self.indices.append((flat.view(f"u{array.dtype.itemsize}"), check.rows))
            elif check.bounds is not None:
                low, high = (array.dtype.type(bound) for bound in check.bounds)
                self.bounded.append((flat, low, high))
            elif check.finite and (flat.size > _SMALL or array.dtype.itemsize == 2):
                self.large.append((flat, np.empty(flat.shape, np.bool_)))
            elif check.finite:
                self.small.append(flat)

    def doubtful(self) -> bool:
        """Whether a value may be NaN, infinite, odd or out of range.

        True is a suspicion only: the square of a large finite value overflows, too.
        """
        for flat in self.small:
            # A sum of squares is finite only if every term is; `dot` would warn of an overflow.
            if not isfinite(vdot(flat, flat)):
                return True
        for flat, low, high in self.bounded:
            # NaN is neither: it comes through both, and compares as false.
            if not (low <= least(flat) and greatest(flat) <= high):
                return True
        for values, mask in self.large:
            np.isfinite(values, out=mask)
            if not mask.all():
                return True
        return bool(self.indices) and self._outside()

    def quick(self) -> Callable[[], bool] | None:
        """`doubtful` of a single float array, in as few steps as Python allows; else None."""
        if len(self.small) + len(self.bounded) != 1 or self.large or self.indices:
            return None
        if self.small:
            (flat,) = self.small
            return lambda: not isfinite(vdot(flat, flat))
        ((flat, low, high),) = self.bounded
        return lambda: not (low <= least(flat) and greatest(flat) <= high)

    def _outside(self) -> bool:
        return any(int(values.max()) >= limit for values, limit in self.indices)
