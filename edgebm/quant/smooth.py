"""Which exponent smooths an activation best, told by its rounded products. Knows no graph."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from edgebm.quant.equalize import balance
from edgebm.quant.observe import Mse
from edgebm.quant.params import fake_quantize, range_params, symmetric_params

F64 = NDArray[np.float64]
F32 = NDArray[np.float32]
ALPHAS = (0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 1.0)
_BITS = 8
_TINY = 1e-30


def smoothing_factor(peak: F64, weights: Sequence[NDArray[np.floating]], alpha: float) -> F64:
    """s[k] = max|x[k]|^alpha / max|w[k]|^(1 - alpha), times one number for all k: shape [K].

    Args:
        peak: largest magnitude of each input channel, shape [K].
        weights: matrices that read the channels, each of shape [K, N].
        alpha: 0 evens out the weights alone, 1 the activation alone.

    Source:
        Xiao et al. 2023, "SmoothQuant", arXiv:2211.10438, section 4 (equation 4).
    """
    demand = np.max([np.abs(weight).max(axis=1) for weight in weights], axis=0)
    return balance(peak, demand.astype(np.float64), alpha)


def best_alpha(
    rows: F32, peak: F64, weights: Sequence[F32], alphas: Sequence[float] = ALPHAS
) -> tuple[float | None, float]:
    """The exponent whose quantized products are nearest to the float ones, and what it gains.

    Args:
        rows: inputs of the products, shape [R, K].
        peak: largest magnitude of each input channel, shape [K].
        weights: the matrices, each of shape [K, N].
        alphas: exponents to try.

    Returns:
        (alpha, its `product_error` over that without smoothing); alpha is None, and the ratio
        1, where no exponent is better than none.

    Source:
        Lin et al. 2024, "AWQ", arXiv:2306.00978, section 3.2 (search by the output's error).
    """
    best, plain = None, product_error(rows, weights, np.ones_like(peak))
    least = plain
    for alpha in alphas:
        error = product_error(rows, weights, smoothing_factor(peak, weights, alpha))
        if error < least:
            best, least = alpha, error
    return best, least / plain if plain > 0 else 1.0


def product_error(rows: F32, weights: Sequence[F32], factor: F64) -> float:
    """Median over rows of |q(x / s) q(s W) - x W|^2 / |x W|^2, all matrices together.

    Activations round to 8 bits over the range of least squared error, weights to 8 bits a column.
    The median, because a row in a hundred that is far off moves a sum, and hardly a model.
    """
    scale = factor.astype(np.float32)
    smooth = rows / scale
    watcher = Mse(_BITS)
    watcher.update(smooth)
    rounded = fake_quantize(smooth, range_params(watcher.result(), bits=_BITS, signed=False))
    off, size = np.zeros(len(rows)), np.zeros(len(rows))
    for weight in weights:
        scaled = weight * scale[:, None]
        params = symmetric_params(scaled, bits=_BITS, axis=1)
        want = rows @ weight
        off += ((rounded @ fake_quantize(scaled, params) - want) ** 2).sum(axis=1)
        size += (want**2).sum(axis=1)
    return float(np.median(off / np.maximum(size, _TINY)))
