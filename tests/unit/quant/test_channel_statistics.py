from __future__ import annotations

import numpy as np
import pytest

from edgebm.quant.channels import ChannelStatistics, RowSample

RNG = np.random.default_rng(0)


@pytest.mark.parametrize(("axis", "shape"), [(1, (2, 6, 5, 3)), (-1, (3, 4, 6)), (1, (4, 6))])
def test_peak_and_power_of_each_channel(axis: int, shape: tuple[int, ...]) -> None:
    batches = [RNG.normal(size=shape).astype(np.float32) for _ in range(4)]
    seen = ChannelStatistics(axis)
    for batch in batches:
        seen.update(batch)
    rows = np.moveaxis(np.stack(batches), axis if axis < 0 else axis + 1, 0).reshape(6, -1)
    assert seen.peak.shape == seen.power.shape == (6,)
    np.testing.assert_allclose(seen.peak, np.abs(rows).max(axis=1))
    np.testing.assert_allclose(seen.power, (rows.astype(np.float64) ** 2).mean(axis=1))


def test_a_channel_that_is_repeated_counts_all_its_places() -> None:
    batch = np.arange(12, dtype=np.float32).reshape(1, 12)
    seen = ChannelStatistics(1, repeat=4)
    seen.update(batch)
    np.testing.assert_array_equal(seen.peak, [3, 7, 11])
    np.testing.assert_allclose(seen.power[0], (0 + 1 + 4 + 9) / 4)


def test_nothing_seen_and_values_that_are_no_numbers() -> None:
    seen = ChannelStatistics(1)
    seen.update(np.zeros((0, 3), np.float32))
    assert not seen.power.any()
    for bad in (np.nan, np.inf):
        with pytest.raises(ValueError, match="NaN or infinite"):
            seen.update(np.full((2, 3), bad, np.float32))


def test_a_sample_of_rows_is_fixed_in_size_and_fair() -> None:
    sample = RowSample(200, seed=0)
    for start in range(0, 5000, 50):
        rows = np.arange(start, start + 50, dtype=np.float32)
        sample.update(np.stack([rows, -rows], axis=-1)[None])  # [1, 50, 2]
        assert sample.rows.shape == (min(200, start + 50), 2)
    kept = sample.rows[:, 0]
    assert len(set(kept.tolist())) == 200
    np.testing.assert_array_equal(sample.rows[:, 1], -kept)
    assert (np.diff(kept) > 0).all()  # in the order of arrival
    assert abs(kept.mean() - 2500) < 4 * 5000 / np.sqrt(12 * 200)


def test_a_sample_of_rows_follows_its_seed_and_not_the_batches() -> None:
    rows = RNG.normal(size=(300, 4)).astype(np.float32)
    whole, parts, other = RowSample(20, 1), RowSample(20, 1), RowSample(20, 2)
    whole.update(rows)
    other.update(rows)
    for part in np.split(rows, 6):
        parts.update(part)
    np.testing.assert_array_equal(whole.rows, parts.rows)
    assert not np.array_equal(whole.rows, other.rows)
