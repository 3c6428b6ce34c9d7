from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgebm.quant.params import block_params, fake_quantize, quantize, spread, symmetric_params


def normal(*shape: int, seed: int = 0) -> np.ndarray:  # type: ignore[type-arg]
    return np.random.default_rng(seed).normal(size=shape).astype(np.float32)


@given(
    bits=st.sampled_from([2, 4, 8]),
    axis=st.sampled_from([0, 1, -1]),
    size=st.sampled_from([4, 8]),
    offset=st.floats(-3, 3),
    seed=st.integers(0, 99),
)
def test_a_block_is_covered_to_half_a_step(
    bits: int, axis: int, size: int, offset: float, seed: int
) -> None:
    weight = normal(16, 8, seed=seed) + np.float32(offset)
    params = block_params(weight, bits=bits, axis=axis, block_size=size, search=False)
    shape = list(weight.shape)
    shape[axis] //= size
    assert params.scale.shape == params.zero_point.shape == tuple(shape)
    assert (params.bits, params.signed, params.axis) == (bits, False, axis % 2)
    assert params.zero_point.min() >= 0
    assert params.zero_point.max() <= params.qmax
    error = np.abs(fake_quantize(weight, params) - weight)
    # The zero point is rounded too, so that one end may lie another half step outside.
    assert (error <= 1.001 * spread(params.scale, weight, params)).all()
    np.testing.assert_array_equal(fake_quantize(np.zeros_like(weight), params), 0.0)


def test_the_search_gains_and_never_costs() -> None:
    weight = normal(128, 32)
    whole = block_params(weight, bits=4, axis=0, block_size=32, search=False)
    found = block_params(weight, bits=4, axis=0, block_size=32)
    before, after = (
        ((fake_quantize(weight, p) - weight) ** 2).reshape(4, 32, 32).sum(axis=1)
        for p in (whole, found)
    )
    assert (after <= before * (1 + 1e-6)).all()
    assert after.sum() < 0.95 * before.sum()


def test_blocks_with_a_zero_point_keep_more_than_one_symmetric_scale_per_channel() -> None:
    weight = normal(256, 16) + np.float32(0.5)
    blocks = block_params(weight, bits=4, axis=0, block_size=32)
    channels = symmetric_params(weight, bits=4, axis=1)
    errors = [((fake_quantize(weight, p) - weight) ** 2).sum() for p in (blocks, channels)]
    assert errors[0] < 0.5 * errors[1]


def test_blocks_of_zeros_and_of_one_value() -> None:
    weight = np.zeros((32, 2), np.float32)
    weight[:16, 1] = 0.75
    params = block_params(weight, bits=4, axis=0, block_size=16)
    np.testing.assert_allclose(fake_quantize(weight, params), weight, rtol=1e-6)
    assert (params.scale > 0).all()
    assert quantize(weight, params).max() <= 15


def test_what_does_not_fit_is_refused() -> None:
    with pytest.raises(ValueError, match="blocks of 16 do not divide an axis of 40"):
        block_params(normal(40, 3), bits=4, axis=0, block_size=16)
    with pytest.raises(ValueError, match="NaN or infinite"):
        block_params(np.full((16, 2), np.nan, np.float32), bits=4, axis=0, block_size=16)
