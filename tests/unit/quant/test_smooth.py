from __future__ import annotations

import numpy as np

from edgebm.quant.smooth import ALPHAS, best_alpha, product_error, smoothing_factor

RNG = np.random.default_rng(0)
W = [RNG.normal(size=(32, n)).astype(np.float32) for n in (24, 8)]
PEAKS = np.ones(32)
PEAKS[[3, 11]] = 80.0
ROWS = (RNG.normal(size=(400, 32)) * PEAKS).astype(np.float32)
PEAK = np.abs(ROWS).max(axis=0).astype(np.float64)


def test_the_formula_up_to_one_number() -> None:
    found = smoothing_factor(PEAK, W, 0.7)
    demand = np.max([np.abs(w).max(axis=1) for w in W], axis=0)
    want = PEAK**0.7 / demand**0.3
    np.testing.assert_allclose(found / np.median(found), want / np.median(want), rtol=1e-6)


def test_the_best_exponent_has_the_least_error() -> None:
    alpha, ratio = best_alpha(ROWS, PEAK, W)
    errors = {a: product_error(ROWS, W, smoothing_factor(PEAK, W, a)) for a in ALPHAS}
    assert alpha == min(errors, key=errors.__getitem__)
    assert ratio == errors[alpha] / product_error(ROWS, W, np.ones(32))
    assert ratio < 0.2


def test_even_channels_are_left_alone_or_hardly_gain() -> None:
    even = (ROWS / PEAKS).astype(np.float32)
    alpha, ratio = best_alpha(even, np.abs(even).max(axis=0).astype(np.float64), W)
    assert ratio > 0.8
    assert (alpha is None) == (ratio == 1.0)


def test_no_exponent_is_better_than_none_where_the_weights_bear_the_outliers() -> None:
    flat = [np.where(np.arange(32)[:, None] == 5, 300.0, 1.0).astype(np.float32) * W[0]]
    even = (ROWS / PEAKS).astype(np.float32)
    peak = np.abs(even).max(axis=0).astype(np.float64)
    assert best_alpha(even, peak, flat, alphas=(1.0,))[1] <= 1.0


def test_one_row_far_off_moves_the_median_little() -> None:
    base = product_error(ROWS, W, np.ones(32))
    spoiled = ROWS.copy()
    spoiled[0] = 0.0  # a row of zeros has no relative error, and divides by nothing
    assert abs(product_error(spoiled, W, np.ones(32)) / base - 1) < 0.05
