from __future__ import annotations

import itertools
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from edgebm.quant import gptq as module
from edgebm.quant.gptq import Hessian, gptq
from edgebm.quant.params import QuantParams, block_params, fake_quantize, symmetric_params

Array = NDArray[Any]


def correlated(rows: int, channels: int, seed: int = 0) -> Array:
    """Inputs [rows, channels] that share a few directions, as those of real layers do."""
    rng = np.random.default_rng(seed)
    shared = rng.normal(size=(rows, max(1, channels // 4))) @ rng.normal(
        size=(max(1, channels // 4), channels)
    )
    return np.asarray(shared + 0.3 * rng.normal(size=(rows, channels)), np.float32)


def moments(x: Array) -> Array:
    hessian = Hessian()
    hessian.update(x)
    return hessian.result


def grids(weight: Array) -> dict[str, QuantParams]:
    return {
        "tensor": symmetric_params(weight, bits=4, axis=None),
        "channel": symmetric_params(weight, bits=4, axis=1),
        "block": block_params(weight, bits=4, axis=0, block_size=16),
    }


def error(x: Array, weight: Array, rounded: Array) -> float:
    return float(((x.astype(np.float64) @ (rounded.astype(np.float64) - weight)) ** 2).sum())


def test_the_hessian_is_the_mean_of_outer_products_however_the_rows_come() -> None:
    x = correlated(3000, 7)
    whole = 2 * x.astype(np.float64).T @ x / len(x)
    pieces = Hessian()
    for start, stop in itertools.pairwise([0, 1, 700, 701, 2900, 3000]):
        pieces.update(x[start:stop].reshape(1, stop - start, 7))
    assert pieces.rows == 3000
    assert pieces.result.shape == (7, 7)
    np.testing.assert_allclose(pieces.result, whole, rtol=1e-5, atol=1e-6 * np.abs(whole).max())
    np.testing.assert_allclose(pieces.result, moments(x), rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("act_order", [True, False])
@pytest.mark.parametrize("grid", ["tensor", "channel", "block"])
def test_every_value_is_on_the_grid(grid: str, *, act_order: bool) -> None:
    weight = np.random.default_rng(1).normal(size=(48, 6)).astype(np.float32)
    before = weight.copy()
    params = grids(weight)[grid]
    rounded = gptq(weight, params, moments(correlated(200, 48)), act_order=act_order)
    assert rounded.shape == weight.shape
    assert rounded.dtype == np.float32
    np.testing.assert_array_equal(fake_quantize(rounded, params), rounded)
    np.testing.assert_array_equal(weight, before)


@pytest.mark.parametrize("act_order", [True, False])
@pytest.mark.parametrize("grid", ["tensor", "channel", "block"])
def test_the_product_changes_less_than_by_rounding_to_the_nearest(
    grid: str, *, act_order: bool
) -> None:
    x = correlated(400, 64)
    weight = np.random.default_rng(2).normal(size=(64, 24)).astype(np.float32)
    params = grids(weight)[grid]
    rounded = gptq(weight, params, moments(x), act_order=act_order)
    assert error(x, weight, rounded) < 0.6 * error(x, weight, fake_quantize(weight, params))


def best_by_trying_all(x: Array, weight: Array, params: QuantParams) -> float:
    levels = np.arange(params.qmin, params.qmax + 1) * float(params.scale)
    tried = (
        np.array(each).reshape(-1, 1) for each in itertools.product(levels, repeat=len(weight))
    )
    return min(error(x, weight, each) for each in tried)


def test_it_comes_close_to_the_best_of_all_roundings() -> None:
    """Over 20 matrices of 4 channels on 7 levels, against all 2,401 ways to round each."""
    exact = nearest = found = 0.0
    for seed in range(20):
        x = correlated(50, 4, seed)
        weight = np.random.default_rng(seed).normal(size=(4, 1)).astype(np.float32)
        params = symmetric_params(weight, bits=3, axis=None)
        best = best_by_trying_all(x, weight, params)
        got = error(x, weight, gptq(weight, params, moments(x)))
        assert got >= best * (1 - 1e-6)
        exact += best
        found += got
        nearest += error(x, weight, fake_quantize(weight, params))
    assert exact <= found < 0.5 * (exact + nearest)


def test_inputs_that_share_nothing_round_to_the_nearest() -> None:
    weight = np.random.default_rng(3).normal(size=(32, 5)).astype(np.float32)
    params = symmetric_params(weight, bits=4, axis=1)
    apart = np.diag(np.linspace(0.1, 3.0, 32))
    np.testing.assert_array_equal(gptq(weight, params, apart), fake_quantize(weight, params))


def test_channels_that_are_always_zero_round_to_the_nearest_and_disturb_nothing() -> None:
    x = correlated(200, 32)
    x[:, 5] = x[:, 20] = 0.0
    weight = np.random.default_rng(4).normal(size=(32, 5)).astype(np.float32)
    params = symmetric_params(weight, bits=4, axis=1)
    rounded = gptq(weight, params, moments(x))
    near = fake_quantize(weight, params)
    np.testing.assert_array_equal(rounded[[5, 20]], near[[5, 20]])
    assert error(x, weight, rounded) < error(x, weight, near)


def test_fewer_samples_than_channels_do_no_harm() -> None:
    x = correlated(5, 64)
    weight = np.random.default_rng(5).normal(size=(64, 8)).astype(np.float32)
    params = symmetric_params(weight, bits=4, axis=1)
    rounded = gptq(weight, params, moments(x))
    assert error(x, weight, rounded) < error(x, weight, fake_quantize(weight, params))


def test_the_answer_does_not_depend_on_how_many_columns_go_together(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    weight = np.random.default_rng(6).normal(size=(48, 8)).astype(np.float32)
    params, seen = symmetric_params(weight, bits=4, axis=1), moments(correlated(200, 48))
    whole = gptq(weight, params, seen)
    monkeypatch.setattr(module, "_COLUMNS", 7)
    np.testing.assert_array_equal(gptq(weight, params, seen), whole)


def test_what_is_not_finite_is_refused() -> None:
    weight = np.ones((4, 2), np.float32)
    params = symmetric_params(weight, bits=4, axis=1)
    with pytest.raises(ValueError, match="NaN or infinite"):
        gptq(weight, params, np.full((4, 4), np.nan))
    with pytest.raises(ValueError, match="NaN or infinite"):
        Hessian().update(np.array([[1.0, np.inf]]))
