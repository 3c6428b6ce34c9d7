from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import array_shapes, arrays
from numpy.typing import NDArray

from edgebm.quant.params import (
    QuantParams,
    Range,
    dequantize,
    fake_quantize,
    quantize,
    range_params,
    symmetric_params,
)

TINY = float(np.finfo(np.float32).tiny)
MAX = float(np.finfo(np.float32).max)
# Between 2^-100 and 2^100, or zero: a step is then a normal float32.
NUMBERS = st.floats(-(2.0**100), 2.0**100, width=32).map(
    lambda x: x if abs(x) > 2.0**-100 else 0.0
)
WEIGHTS = arrays(np.float32, array_shapes(min_dims=1, max_dims=4, max_side=5), elements=NUMBERS)
BITS = st.integers(2, 8)


def half_steps(error: NDArray[np.float64], scale: NDArray[np.float32]) -> float:
    """The largest error in half steps; 1 is what rounding to the nearest allows."""
    return float((2 * np.abs(error) / scale.astype(np.float64)).max(initial=0.0))


@given(weight=WEIGHTS, bits=BITS, data=st.data())
def test_symmetric_rounds_to_the_nearest_step(
    weight: NDArray[np.float32], bits: int, data: st.DataObject
) -> None:
    axis = data.draw(st.sampled_from([None, *range(weight.ndim)]))
    params = symmetric_params(weight, bits=bits, axis=axis)
    assert params.scale.shape == (() if axis is None else (weight.shape[axis],))
    assert params.zero_point.shape == params.scale.shape
    assert params.scale.dtype == np.float32
    assert params.zero_point.dtype == np.int32
    assert (params.scale > 0).all()
    back = fake_quantize(weight, params)
    assert back.shape == weight.shape
    assert back.dtype == np.float32
    shape = [1] * weight.ndim
    if axis is not None:
        shape[axis] = -1
    error = back.astype(np.float64) - weight
    assert half_steps(error, np.broadcast_to(params.scale.reshape(shape), weight.shape)) <= 1.001


@given(weight=WEIGHTS, bits=BITS)
def test_symmetric_uses_the_whole_narrow_grid_and_no_more(
    weight: NDArray[np.float32], bits: int
) -> None:
    params = symmetric_params(weight, bits=bits, axis=None)
    q = quantize(weight, params)
    assert params.qmin == -params.qmax == -(2 ** (bits - 1) - 1)
    np.testing.assert_array_equal(quantize(-weight, params), -q, "-x and +x round alike")
    assert np.abs(q).max() == (params.qmax if weight.any() else 0)


def test_int8_weights_never_hold_minus_128() -> None:
    weight = np.linspace(-1, 1, 511, dtype=np.float32)
    q = quantize(weight, symmetric_params(weight, bits=8, axis=None))
    assert (q.min(), q.max()) == (-127, 127)
    assert (q.astype(np.int8) == q).all()


@given(low=NUMBERS, high=NUMBERS, bits=BITS, share=st.floats(0, 1))
def test_a_range_is_covered_to_half_a_step_with_zero_on_the_grid(
    low: float, high: float, bits: int, share: float
) -> None:
    low, high = min(low, high), max(low, high)
    params = range_params(Range(low, high), bits=bits, signed=False)
    assert params.scale.shape == params.zero_point.shape == ()
    assert params.axis is None
    assert params.scale > 0
    assert 0 <= params.zero_point <= 2**bits - 1
    assert fake_quantize(np.zeros(1, np.float32), params)[0] == 0.0
    x = np.array([low, high, low + share * (high - low)], np.float32)
    error = fake_quantize(x, params).astype(np.float64) - x
    assert half_steps(error, params.scale) <= 1.01


@given(low=NUMBERS, high=NUMBERS)
def test_a_signed_range_is_symmetric(low: float, high: float) -> None:
    span = Range(min(low, high), max(low, high))
    params = range_params(span, bits=8, signed=True)
    assert params.zero_point == 0
    x = np.array([span.low, span.high], np.float32)
    assert half_steps(fake_quantize(x, params).astype(np.float64) - x, params.scale) <= 1.001


@pytest.mark.parametrize("span", [Range(2.0, 6.0), Range(-6.0, -2.0)])
def test_a_range_without_zero_is_widened_to_it(span: Range) -> None:
    params = range_params(span, bits=8, signed=False)
    assert float(params.scale) == pytest.approx(6.0 / 255)
    assert params.zero_point == (0 if span.low > 0 else 255)


def test_values_beyond_the_range_saturate() -> None:
    params = range_params(Range(-1.0, 3.0), bits=8, signed=False)
    q = quantize(np.array([-50.0, 50.0], np.float32), params)
    np.testing.assert_array_equal(q, [0, 255])


@pytest.mark.parametrize("bits", [2, 4, 7, 8])
def test_an_all_zero_channel_gets_scale_one(bits: int) -> None:
    weight = np.zeros((3, 4), np.float32)
    weight[1] = 5.0
    params = symmetric_params(weight, bits=bits, axis=0)
    assert params.scale[0] == params.scale[2] == 1.0
    np.testing.assert_allclose(fake_quantize(weight, params), weight, rtol=1e-6)


@pytest.mark.parametrize("peak", [1e-45, 1e-40, TINY, 2 * TINY, 1e-37, 1e-36])
def test_denormal_channels_get_a_step_that_can_be_divided_by(peak: float) -> None:
    weight = np.full((1, 4), peak, np.float32)
    params = symmetric_params(weight, bits=8, axis=0)
    with np.errstate(over="raise"):
        assert np.isfinite(np.float32(1) / params.scale).all()
    assert np.abs(fake_quantize(weight, params) - weight).max() <= 1e-36
    span = range_params(Range(0.0, peak), bits=8, signed=False)
    assert np.isfinite(np.float32(1) / span.scale)


def test_huge_channels_stay_finite() -> None:
    weight = np.array([[MAX / 2, -MAX / 2, 1.0]], np.float32)
    params = symmetric_params(weight, bits=8, axis=0)
    back = fake_quantize(weight, params)
    assert np.isfinite(back).all()
    assert half_steps(back.astype(np.float64) - weight, params.scale) <= 1.001
    wide = range_params(Range(-MAX / 2, MAX / 2), bits=8, signed=False)
    assert np.isfinite(fake_quantize(weight, wide)).all()


def test_half_precision_weights_get_full_precision_scales() -> None:
    weight = np.array([[0.0051, -0.0049, 0.0012]], np.float16)
    params = symmetric_params(weight, bits=8, axis=0)
    assert float(params.scale[0]) == pytest.approx(float(weight.max()) / 127, rel=1e-6)


def test_a_given_peak_replaces_the_largest_magnitude() -> None:
    weight = np.array([[1.0, -4.0], [2.0, 2.0]], np.float32)
    params = symmetric_params(weight, bits=8, axis=0, peak=np.array([2.0, 1.0], np.float32))
    np.testing.assert_allclose(params.scale, [2 / 127, 1 / 127], rtol=1e-6)
    np.testing.assert_array_equal(quantize(weight, params), [[64, -127], [127, 127]])


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_bad_values_are_refused(bad: float) -> None:
    weight = np.array([[1.0, bad]], np.float32)
    with pytest.raises(ValueError, match="NaN or infinite"):
        symmetric_params(weight, bits=8, axis=0)
    if np.isnan(bad):  # min() and max() drop a NaN or keep it, by the order of their arguments
        return
    with pytest.raises(ValueError, match="not finite"):
        range_params(Range(min(bad, 0.0), max(bad, 0.0)), bits=8, signed=False)


@settings(max_examples=50)
@given(data=st.data(), bits=BITS)
def test_integers_survive_a_round_trip(data: st.DataObject, bits: int) -> None:
    zero = data.draw(st.integers(0, 2**bits - 1))
    scale = np.asarray(data.draw(st.floats(2.0**-30, 2.0**30, width=32)), np.float32)
    params = QuantParams(bits, signed=False, scale=scale, zero_point=np.asarray(zero, np.int32))
    q = np.arange(params.qmin, params.qmax + 1, dtype=np.int32)
    np.testing.assert_array_equal(quantize(dequantize(q, params), params), q)


def test_weights_are_not_modified() -> None:
    weight = np.linspace(-1, 1, 12, dtype=np.float32).reshape(3, 4)
    weight.flags.writeable = False
    kept = weight.copy()
    params = symmetric_params(weight, bits=4, axis=1)
    fake_quantize(weight, params)
    np.testing.assert_array_equal(weight, kept)
