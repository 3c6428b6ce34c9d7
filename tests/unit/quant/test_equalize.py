from __future__ import annotations

import numpy as np
import pytest

from edgebm.quant.equalize import Product, balance, choose_factor
from edgebm.quant.params import Range, fake_quantize, range_params, symmetric_params

RNG = np.random.default_rng(0)
C, O = 16, 12  # noqa: E741 - channels in and out


def product(spread: float = 1.0, groups: int = 1) -> tuple[Product, np.ndarray]:
    """A product of normal weights, and inputs whose channels lie up to `spread` apart."""
    scale = spread ** RNG.uniform(0, 1, C)
    x = np.abs(RNG.normal(size=(4000, C))) * scale
    columns = RNG.normal(size=(groups, O // groups, C // groups, 1))
    return Product(columns, np.abs(x).max(axis=0), (x**2).mean(axis=0)), x


def test_the_expected_noise_is_that_of_rounding() -> None:
    """Against 8-bit rounding of inputs and weights themselves, within two decibels."""
    for spread in (1.0, 30.0):
        made, x = product(spread)
        weight = made.columns[0, :, :, 0].T
        grid = range_params(Range(0.0, float(x.max())), bits=8, signed=False)
        rounded = fake_quantize(weight, symmetric_params(weight, bits=8, axis=1))
        off = fake_quantize(x, grid) @ rounded - x @ weight
        power = (weight**2 * made.power[:, None]).sum(axis=0)
        measured = float(((off**2).mean(axis=0) / power).sum())
        expected = made.noise(np.ones(C))
        assert abs(10 * np.log10(expected / measured)) < 2.0


@pytest.mark.parametrize("groups", [1, 4, 16])
def test_a_spread_made_on_purpose_is_taken_back(groups: int) -> None:
    even, _ = product(1.0, groups) if groups < 16 else product(1.0, 1)
    factor = 1000.0 ** RNG.uniform(0, 1, C)
    hard = Product(
        even.columns * even._grouped(1 / factor)[:, None, :, None],
        even.peak * factor,
        even.power * factor**2,
    )
    found, ratio = choose_factor([hard], [0.5])
    # What is left differs by the little that the even one gains itself.
    undone = found / factor
    assert undone.max() / undone.min() < 10
    assert hard.noise(found) < 1.2 * even.noise(np.ones(C))
    assert ratio == pytest.approx(hard.noise(found) / hard.noise(np.ones(C)))


def test_the_factor_by_hand() -> None:
    peak, demand = np.array([4.0, 1.0, 16.0]), np.array([1.0, 1.0, 1.0])
    np.testing.assert_allclose(balance(peak, demand, 0.5), [1.0, 0.5, 2.0])
    np.testing.assert_allclose(balance(peak, demand, 1.0), [1.0, 0.25, 4.0])
    np.testing.assert_allclose(balance(np.ones(3), peak, 0.0), [1.0, 4.0, 0.25])


def test_dead_channels_stay() -> None:
    found = balance(np.array([0.0, 2.0, 8.0]), np.array([1.0, 1.0, 0.0]), 0.5)
    np.testing.assert_array_equal(found[[0, 2]], 1.0)
    np.testing.assert_array_equal(balance(np.zeros(2), np.zeros(2), 0.5), 1.0)


def test_an_output_that_nothing_reaches_does_not_count() -> None:
    """In a depthwise layer each channel is an output: a dead one must not outweigh all others."""
    columns = RNG.normal(size=(8, 1, 1, 9))
    peak = np.array([0.0, *1000.0 ** RNG.uniform(0, 1, 7)])
    made = Product(columns, peak, peak**2 / 3)
    assert made.importance()[0, 0] == 0
    alive = Product(columns[1:], peak[1:], peak[1:] ** 2 / 3)
    assert made.noise(np.ones(8)) == pytest.approx(alive.noise(np.ones(7)))
    _, ratio = choose_factor([made], [0.5])
    _, expected = choose_factor([alive], [0.5])
    assert ratio == pytest.approx(expected)


def test_the_exponent_with_the_least_noise_is_taken() -> None:
    made, _ = product(300.0)
    every = [0.0, 0.25, 0.5, 0.75, 1.0]
    noises = [made.noise(balance(made.peak, made.demand(), alpha)) for alpha in every]
    found, _ = choose_factor([made], every)
    assert made.noise(found) == min(noises)


def test_limits_hold() -> None:
    """Channels at their limit stay, others are raised to it at the most."""
    made, _ = product(100.0)
    least = np.minimum(made.peak / 6.0, 1.0)
    assert 0 < (least >= 1).sum() < C
    found, ratio = choose_factor([made], [0.5], least=least)
    np.testing.assert_array_equal(found[least >= 1], 1.0)
    below = least < 1
    assert (made.peak[below] / found[below] <= 6.0 * (1 + 1e-12)).all()
    assert ratio < 1
