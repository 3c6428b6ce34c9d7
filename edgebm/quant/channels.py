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


class RowSample:
    """At most `size` rows of an activation, each with the same chance, in memory that is fixed.

    Every row draws a number, and those with the smallest stay.

    Source:
        Vitter 1985, "Random sampling with a reservoir", ACM TOMS 11 (1), section 2.
    """

    def __init__(self, size: int, seed: int) -> None:
        self._size, self._rng = size, np.random.default_rng(seed)
        self._drawn: F64 = np.zeros(0)
        self._rows: list[NDArray[Any]] = []

    def update(self, batch: NDArray[Any], /) -> None:
        """Take in `batch`, shape [..., K]; K as in those before."""
        rows = batch.reshape(-1, batch.shape[-1])
        drawn = np.concatenate([self._drawn, self._rng.random(len(rows))])
        kept = np.sort(np.argsort(drawn, kind="stable")[: self._size])
        held = len(self._drawn)
        # Copies of rows: a view would keep its whole batch in memory.
        self._rows = [self._rows[i] if i < held else rows[i - held].copy() for i in kept]
        self._drawn = drawn[kept]

    @property
    def rows(self) -> NDArray[np.float32]:
        """What was kept, in the order of arrival, shape [R, K]."""
        return np.asarray(self._rows, np.float32)
