"""The integers of a recurrent cell: one grid for input and state, one scale per row of weights."""

from __future__ import annotations

import numpy as np
import pytest

from edgebm.quant.recurrent import cell_params, folded, gate_error, hidden_range

GATES = {"LSTM": 4, "GRU": 3}


def weights(op: str, hidden: int = 8, inputs: int = 5) -> tuple[np.ndarray, ...]:
    rng = np.random.default_rng(0)
    rows = GATES[op] * hidden
    shapes = [(rows, inputs), (rows, hidden), (rows,)]
    return tuple(rng.normal(size=shape).astype(np.float32) for shape in shapes)


LOW = np.array([-3, 0, -1, 5, 2], np.float32)
HIGH = np.array([1, 4, 1, 9, 2], np.float32)


@pytest.mark.parametrize("op", ["LSTM", "GRU"])
def test_folding_changes_nothing_in_float(op: str) -> None:
    w, r, b = weights(op)
    params = cell_params(op, w, r, LOW, HIGH, 0.9)
    x = np.random.default_rng(1).uniform(LOW, HIGH, (20, 5)).astype(np.float32)
    moved, bias = folded(params, w, b)
    stepped = (x - params.offset) / params.stretch
    np.testing.assert_allclose(stepped @ moved.T + bias, x @ w.T + b, rtol=1e-5, atol=1e-4)


def test_the_input_fills_the_grid_of_the_state() -> None:
    w, r, _ = weights("LSTM")
    params = cell_params("LSTM", w, r, LOW, HIGH, 0.75)
    assert params.hidden == hidden_range(0.75)
    grid = params.data
    assert (int(grid.zero_point), float(grid.scale)) == (128, pytest.approx(0.75 / 128))
    ends = (np.stack([LOW, HIGH]) - params.offset) / params.stretch
    np.testing.assert_allclose(
        ends[:, :4].T, [[-0.75 * 127 / 128, 0.75 * 127 / 128]] * 4, rtol=1e-5
    )
    # A channel that never changes is taken out whole.
    np.testing.assert_array_equal(ends[:, 4], 0)


def test_one_scale_reaches_the_rows_of_both_weights() -> None:
    w, r, _ = weights("GRU")
    params = cell_params("GRU", w, r, LOW, HIGH, 1.0)
    peaks = np.maximum(np.abs(w * params.stretch).max(1), np.abs(r).max(1))
    np.testing.assert_allclose(params.weights.scale, peaks / 127, rtol=1e-6)


def test_input_and_forget_gate_of_an_lstm_share_their_scales() -> None:
    w, r, _ = weights("LSTM")
    scale = cell_params("LSTM", w, r, LOW, HIGH, 1.0).weights.scale.reshape(4, 8)
    np.testing.assert_array_equal(scale[0], scale[2])
    assert not np.array_equal(scale[1], scale[3])


def test_fewer_bits_reach_as_far() -> None:
    w, r, _ = weights("LSTM")
    params = cell_params("LSTM", w, r, LOW, HIGH, 1.0)
    coarse = params.with_weight_bits(7).weights
    assert coarse.bits == 7
    np.testing.assert_allclose(coarse.scale * 63, params.weights.scale * 127, rtol=1e-6)


@pytest.mark.parametrize("op", ["LSTM", "GRU"])
def test_the_error_of_the_gates_sees_a_range_that_is_too_wide_or_too_narrow(op: str) -> None:
    w, r, b = weights(op)
    rng = np.random.default_rng(2)
    x = rng.uniform(LOW, HIGH, (200, 5)).astype(np.float32)
    h = rng.uniform(-1, 1, (200, 8)).astype(np.float32)
    middle, half = (HIGH + LOW) / 2, (HIGH - LOW) / 2

    def error(reach: float, peak: float = 1.0) -> float:
        params = cell_params(op, w, r, middle - reach * half, middle + reach * half, peak)
        return gate_error(op, (w, r, b), (x, h), params)

    assert error(1.0) < min(error(8.0), error(0.25))
    assert error(1.0) < error(1.0, peak=0.3)
    assert error(1.0) < 1e-3
