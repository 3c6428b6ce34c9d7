"""Integers for a recurrent cell: what it reads on one grid, its weights on another. Pure numpy.

An integer kernel takes one scale for the input x and the hidden state h, and one scale per row
for W and R together, since it adds W x and R h in integers. So x is moved and stretched, channel
by channel, onto the grid of h, and W and the bias take that back:

    W x + b = W' x' + b'   with   x' = (x - offset) / stretch,  W' = W stretch,  b' = b + W offset
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgebm.quant.params import (
    F32,
    QuantParams,
    Range,
    fake_quantize,
    range_params,
    symmetric_params,
    with_bits,
)

# Rows of the LSTM's input and forget gates share their scales: OpenVINO (2026.4) sorts the rows
# of these two gates into the order of its kernel, and leaves the scales in the order they had.
_PAIRED = {"LSTM": ((0, 2),)}


@dataclass(frozen=True, slots=True)
class CellParams:
    """How the integers of a recurrent cell are laid out. I inputs, G * H rows.

    `offset` and `stretch` [I] bring x onto the grid of h, which covers `hidden` and is
    asymmetric. `weights` are symmetric parameters with one scale per row [G * H] (axis 0), for
    the rows of W * stretch and of R alike.
    """

    offset: F32
    stretch: F32
    hidden: Range
    weights: QuantParams

    @property
    def data(self) -> QuantParams:
        """The grid of x' and h: 8 bits with 0.0 in its middle."""
        return range_params(self.hidden, bits=8, signed=False)

    def with_weight_bits(self, bits: int) -> CellParams:
        """The same with weights on a grid of `bits` that reaches as far."""
        return replace(self, weights=with_bits(self.weights, bits))


def hidden_range(peak: float) -> Range:
    """The interval of 256 steps around 0.0 that reaches from -peak to one step below peak."""
    return Range(-peak, peak * 127 / 128)


def cell_params(
    op: str, w: NDArray[Any], r: NDArray[Any], low: F32, high: F32, peak: float
) -> CellParams:
    """Lay out the integers of one direction of a cell.

    Args:
        op: "LSTM" or "GRU".
        w: weights of the input [G * H, I], gates in the order of the ONNX standard.
        r: weights of the hidden state [G * H, H].
        low: least value of each input channel that the grid shall reach [I].
        high: largest value of each, likewise [I]; where both are equal the channel is constant.
        peak: magnitude of the hidden state that the grid shall reach; 0 < peak <= 1.
    """
    offset = ((high + low) / 2).astype(np.float32)
    # The upper end of the grid is one step short of `peak`.
    half = ((high - low) / 2 * (128 / 127)).astype(np.float32)
    stretch = np.where(half > 0, half / np.float32(peak), 1.0).astype(np.float32)
    rows = np.maximum(np.abs(w * stretch).max(1), np.abs(r).max(1))
    hidden = r.shape[1]
    for first, second in _PAIRED.get(op, ()):
        pair = [slice(gate * hidden, (gate + 1) * hidden) for gate in (first, second)]
        rows[pair[0]] = rows[pair[1]] = np.maximum(rows[pair[0]], rows[pair[1]])
    weights = symmetric_params(r, bits=8, axis=0, peak=rows)
    return CellParams(offset, stretch, hidden_range(peak), weights)


def folded(
    params: CellParams, w: NDArray[Any], bias: NDArray[Any]
) -> tuple[NDArray[Any], NDArray[Any]]:
    """W' [G * H, I] and the bias b' [G * H] that go with x'; in float."""
    return w * params.stretch, bias + w @ params.offset


def gate_error(
    op: str, parts: tuple[F32, F32, F32], rows: tuple[F32, F32], params: CellParams
) -> float:
    """Mean squared error of the gates when the cell is rounded, the states before given in float.

    Errors of gates are compared behind their sigmoid or tanh: what is lost in a saturated gate
    is not lost.

    Args:
        op: "LSTM" or "GRU" (with `linear_before_reset` 0).
        parts: w [G * H, I], r [G * H, H] and the sum of both biases [G * H].
        rows: x [n, I] and the hidden states before them [n, H].
        params: how it is rounded.
    """
    w, r, bias = parts
    x, h = rows
    moved, b = folded(params, w, bias)
    grid = params.data
    stepped = fake_quantize((x - params.offset) / params.stretch, grid)
    state = fake_quantize(h, grid)
    rounded = (fake_quantize(moved, params.weights), fake_quantize(r, params.weights))
    exact = _gates(op, (x, h), (w, r, bias), None)
    found = _gates(op, (stepped, state), (*rounded, b), grid)
    return float(np.mean((exact - found) ** 2)) + float(np.mean((state - h) ** 2))


def _gates(
    op: str, rows: tuple[F32, F32], parts: tuple[Any, Any, Any], grid: QuantParams | None
) -> NDArray[Any]:
    (x, h), (w, r, bias) = rows, parts
    hidden = r.shape[1]
    summed = x @ w.T + bias
    if op == "LSTM":
        summed += h @ r.T
        return np.concatenate(
            [_sigmoid(summed[:, : 3 * hidden]), np.tanh(summed[:, 3 * hidden :])], axis=1
        )
    both = _sigmoid(summed[:, : 2 * hidden] + h @ r[: 2 * hidden].T)
    kept = both[:, hidden:] * h
    kept = kept if grid is None else fake_quantize(kept, grid)
    candidate = np.tanh(summed[:, 2 * hidden :] + kept @ r[2 * hidden :].T)
    return np.concatenate([both, candidate], axis=1)


def _sigmoid(x: NDArray[Any]) -> NDArray[Any]:
    return 0.5 * (1 + np.tanh(0.5 * x))
