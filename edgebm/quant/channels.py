"""What the channels of an activation look like. Pure numpy; knows no graph."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

F64 = NDArray[np.float64]


class ChannelStatistics:
    """Largest magnitude and mean square of each channel, in memory that does not grow.

    Index i of `axis` belongs to channel i // `repeat`.
    """

    def __init__(self, axis: int = -1, repeat: int = 1) -> None:
        self._axis, self._repeat = axis, repeat
        self._count = 0
        self._peak: F64 = np.zeros(())
        self._squares: F64 = np.zeros(())

    def update(self, batch: NDArray[Any], /) -> None:
        """Take in `batch`, any shape with as many channels as those before.

        Raises:
            ValueError: it holds NaN or infinity.
        """
        rows = np.moveaxis(batch, self._axis, 0)
        rows = rows.reshape(rows.shape[0] // self._repeat, -1)
        if not rows.size:
            return
        peak = np.maximum(rows.max(axis=1), -rows.min(axis=1)).astype(np.float64)
        if not np.isfinite(peak).all():
            raise ValueError("the activation has NaN or infinite values")
        self._count += rows.shape[1]
        self._peak = np.maximum(self._peak, peak)
        self._squares = self._squares + np.einsum("cn,cn->c", rows, rows, dtype=np.float64)

    @property
    def peak(self) -> F64:
        """Largest magnitude of each channel, shape [C]."""
        return self._peak

    @property
    def power(self) -> F64:
        """Mean square of each channel, shape [C]."""
        return np.asarray(self._squares / max(self._count, 1))
