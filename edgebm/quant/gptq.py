"""Round a weight so that its product with typical inputs changes least. Pure numpy.

Rounding every number to the nearest is best for the weight and not for the product: inputs of
a layer are correlated, so the error of one row can be made good in the rows that follow.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgebm.quant.params import F32, QuantParams, dequantize, spread

F64 = NDArray[np.float64]
_BUFFER_ROWS = 1024
_COLUMNS = 128  # rounded one by one before the rest is updated in one product


class Hessian:
    """Second moments `2 X^T X / rows` of a layer's input, summed in fixed memory.

    `result` has shape [K, K], float64; K is the size of the input's last axis.
    """

    def __init__(self) -> None:
        self._sum: F64 | None = None
        self._buffer: F32 = np.empty((0, 0), np.float32)
        self._filled = self.rows = 0

    def update(self, batch: NDArray[Any], /) -> None:
        """Take in `batch` [..., K].

        Raises:
            ValueError: it holds NaN or infinity.
        """
        x = np.asarray(batch, np.float32).reshape(-1, batch.shape[-1])
        if not np.isfinite(x).all():
            raise ValueError("the activation has NaN or infinite values")
        if self._sum is None:
            self._sum = np.zeros((x.shape[1], x.shape[1]))
            self._buffer = np.empty((_BUFFER_ROWS, x.shape[1]), np.float32)
        self.rows += len(x)
        while len(x):
            taken = x[: _BUFFER_ROWS - self._filled]
            self._buffer[self._filled : self._filled + len(taken)] = taken
            self._filled += len(taken)
            x = x[len(taken) :]
            if self._filled == _BUFFER_ROWS:
                self._flush()

    @property
    def result(self) -> F64:
        """The mean over all rows so far; needs at least one."""
        self._flush()
        assert self._sum is not None
        return self._sum * (2.0 / max(1, self.rows))

    def _flush(self) -> None:
        rows = self._buffer[: self._filled]
        if self._sum is not None and len(rows):
            self._sum += rows.T @ rows
        self._filled = 0


def gptq(
    weight: NDArray[Any],
    params: QuantParams,
    hessian: F64,
    *,
    damping: float = 0.01,
    act_order: bool = True,
) -> F32:
    """`weight` on the grid of `params`, rounded so that `x @ weight` changes least.

    Args:
        weight: float [K, N], K the input channels. Not modified.
        params: of a tensor of this shape: per tensor, per channel or per block.
        hessian: [K, K], see `Hessian`.
        damping: added to the diagonal, relative to its mean.
        act_order: round the input channels with the largest moments first, when most of the
            others can still make good for them.

    Returns:
        Float32 [K, N]; each value is `(q - zero_point) * scale` of some integer of the grid, so
        that quantizing it gives that integer again.

    Raises:
        ValueError: the Hessian has NaN or infinity, or cannot be inverted.

    Source:
        Frantar et al. 2023, "GPTQ", arXiv:2210.17323, section 3.3 (algorithm 1).
    """
    moments = np.diag(hessian)
    order = np.argsort(-moments, kind="stable") if act_order else np.arange(len(moments))
    factor = _inverse_factor(hessian[np.ix_(order, order)], damping)
    rest, scale, zero = (
        np.broadcast_to(array, weight.shape)[order].astype(np.float64)
        for array in (
            weight,
            spread(params.scale, weight, params),
            spread(params.zero_point, weight, params),
        )
    )
    integers = np.empty_like(rest)
    for start in range(0, len(rest), _COLUMNS):
        stop = min(start + _COLUMNS, len(rest))
        errors = np.empty((stop - start, rest.shape[1]))
        for k in range(start, stop):
            q = np.clip(np.rint(rest[k] / scale[k]) + zero[k], params.qmin, params.qmax)
            integers[k] = q
            errors[k - start] = (rest[k] - (q - zero[k]) * scale[k]) / factor[k, k]
            rest[k + 1 : stop] -= np.outer(factor[k, k + 1 : stop], errors[k - start])
        rest[stop:] -= factor[start:stop, stop:].T @ errors
    out = np.empty_like(integers)
    out[order] = integers
    return dequantize(out, params)


def _inverse_factor(hessian: F64, damping: float) -> F64:
    """Upper Cholesky factor of the damped inverse: row k says how k's error spreads to the rest.

    Channels that are always zero get a moment of one: their rows round to the nearest.
    """
    moments = np.diag(hessian)
    if not np.isfinite(hessian).all():
        raise ValueError("the Hessian has NaN or infinite values")
    filled = hessian.copy()
    at = np.diag_indices_from(filled)
    filled[at] = np.where(moments > 0, moments, 1.0) + damping * moments.mean()
    try:
        inverse = np.linalg.inv(filled)
        return np.asarray(np.linalg.cholesky(inverse).T)
    except np.linalg.LinAlgError as cause:
        raise ValueError(f"the Hessian cannot be inverted ({cause}); raise the damping") from cause
