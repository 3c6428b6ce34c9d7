"""Factors per channel that make a tensor easier to quantize. Numpy only; knows no graph.

A channel c of an activation can be divided by s[c] when the weights that read it are multiplied
by it. One step for all channels then fits each of them; the price is paid by the reading
weights, whose channels of one output share a step as well.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

F64 = NDArray[np.float64]
# Integers that the peak of a weight and the range of an activation are spread over, at 8 bits.
WEIGHT_LEVELS, ACTIVATION_LEVELS = 127, 255
_TINY = 1e-30


@dataclass(frozen=True, slots=True)
class Product:
    """A layer that sums over quantized channels.

    Attributes:
        columns: its weight, shape [G, O / G, C / G, taps]; output channel (g, o) sums over the
            input channels of group g.
        peak: largest magnitude of each input channel, shape [C].
        power: mean square of each input channel, shape [C].
    """

    columns: F64
    peak: F64
    power: F64

    def importance(self) -> F64:
        """1 / variance of each output channel with independent inputs, shape [G, O / G].

        0 where nothing reaches an output: noise harms no signal there.
        """
        energy = np.einsum("goct,gc->go", self.columns**2, self._grouped(self.power))
        none = np.zeros_like(energy)
        return np.asarray(np.divide(1.0, energy, out=none, where=energy > _TINY))

    def demand(self) -> F64:
        """Largest weight of each input channel, in units of what its output carries: [C]."""
        strength = np.abs(self.columns).max(axis=3) * np.sqrt(self.importance())[:, :, None]
        return np.asarray(strength.max(axis=1).reshape(-1), np.float64)

    def noise(self, factor: F64) -> float:
        """Expected noise over signal, summed over output channels, after dividing by `factor`.

        Rounding errors are taken as uniform and independent, of variance step^2 / 12.
        """
        scale = self._grouped(factor)[:, None, :, None]
        weight = self.columns * scale
        step = float((self.peak / factor).max()) / ACTIVATION_LEVELS
        heard = step**2 * np.einsum("goct,goct->go", weight, weight)
        steps = np.abs(weight).max(axis=(2, 3)) / WEIGHT_LEVELS
        carried = self._grouped(self.power / factor**2).sum(axis=1) * weight.shape[3]
        spoken = steps**2 * carried[:, None]
        return float(((heard + spoken) * self.importance()).sum() / 12)

    def _grouped(self, per_channel: F64) -> F64:
        return per_channel.reshape(self.columns.shape[0], -1)


def balance(peak: F64, demand: F64, alpha: float) -> F64:
    """s[c] = peak[c]^alpha / demand[c]^(1 - alpha), with median 1; 1 for dead channels.

    Alpha 1 evens out the activation alone, 0 the weights alone.

    With alpha 0.5 it is equation 11 of Nagel et al. 2019, arXiv:1906.04721, with the spread of
    the activation in the place of the first layer's weights; for any alpha equation 4 of Xiao
    et al. 2023, arXiv:2211.10438.
    """
    used = (peak > 0) & (demand > 0)
    factor = np.ones_like(peak)
    if used.any():
        # In the logarithm: peaks and demands may lie a hundred decades apart.
        log = alpha * np.log(peak[used]) - (1 - alpha) * np.log(demand[used])
        factor[used] = np.exp(log - np.median(log))
    return factor


def choose_factor(
    products: Sequence[Product], alphas: Sequence[float], *, least: F64 | None = None
) -> tuple[F64, float]:
    """The factor with the least expected noise in `products`, and that noise over today's.

    Args:
        products: the layers that read the channels.
        alphas: exponents to try, see `balance`.
        least: the smallest factor of each channel that is allowed, at most 1, shape [C]; a
            channel of 1 keeps its values. None allows every factor.
    """
    peak = np.max([p.peak for p in products], axis=0)
    demand = np.max([p.demand() for p in products], axis=0)

    def total(factor: F64) -> float:
        return sum(p.noise(factor) for p in products)

    now = total(np.ones_like(peak))
    factors = [_allowed(balance(peak, demand, alpha), least) for alpha in alphas]
    noises = [total(factor) for factor in factors]
    best = int(np.argmin(noises))
    return factors[best], noises[best] / max(now, _TINY)


def _allowed(factor: F64, least: F64 | None) -> F64:
    """`factor`, with the channels of `least` 1 as they are and no other below its `least`."""
    if least is None:
        return factor
    fixed = least >= 1
    if fixed.any():
        # One common factor changes nothing between the others: let the fixed ones set it.
        factor = factor / np.median(factor[fixed])
    return np.where(fixed, 1.0, np.maximum(factor, least))
