from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from edgebm.quant.observe import Entropy, Histogram, MinMax, Mse, Observer, Percentile, observer
from edgebm.quant.params import Range, fake_quantize, range_params

KINDS = ("minmax", "percentile", "mse", "entropy")
F32 = NDArray[np.float32]


def heavy_tailed(seed: int = 0, size: int = 60_000) -> F32:
    """Values like activations of a Transformer: a bell, and a few far outliers."""
    rng = np.random.default_rng(seed)
    x = rng.normal(size=size).astype(np.float32)
    x[rng.integers(0, size, 12)] *= 60
    return x


def batches(x: F32, count: int) -> list[F32]:
    return np.array_split(x, count)


def seen(kind: Observer, x: F32, count: int = 8) -> Range:
    for batch in batches(x, count):
        kind.update(batch)
    return kind.result()


def squared_error(x: F32, span: Range, bits: int = 8) -> float:
    params = range_params(span, bits=bits, signed=False)
    return float(((fake_quantize(x, params).astype(np.float64) - x) ** 2).mean())


@settings(max_examples=40)
@given(
    pieces=st.lists(st.lists(st.floats(-1e6, 1e6, width=32), min_size=1), min_size=1, max_size=6),
    data=st.data(),
)
def test_minmax_is_exact_in_any_order_and_split(
    pieces: list[list[float]], data: st.DataObject
) -> None:
    everything = np.array([x for piece in pieces for x in piece], np.float32)
    for order in (pieces, data.draw(st.permutations(pieces)), [everything.tolist()]):
        watcher = MinMax()
        for piece in order:
            watcher.update(np.array(piece, np.float32))
        assert watcher.result() == Range(float(everything.min()), float(everything.max()))


def test_batches_of_any_rank() -> None:
    for kind in KINDS:
        watcher = observer(kind)
        watcher.update(np.linspace(-1, 1, 2400, dtype=np.float32).reshape(2, 3, 4, 100))
        watcher.update(np.float32(0.5) * np.ones((), np.float32))
        watcher.update(np.ones((0, 5), np.float32))
        span = watcher.result()
        assert -1.0 <= span.low < span.high <= 1.0


# Odd multiples of 2^-9 never lie on a border between bins, whatever the reach.
_DYADIC = st.integers(-(2**12), 2**12).map(lambda n: (2 * n + 1) / 2**9)


@settings(max_examples=40)
@given(pieces=st.lists(st.lists(_DYADIC, min_size=1), min_size=1, max_size=6), data=st.data())
def test_histogram_does_not_depend_on_order_or_split(
    pieces: list[list[float]], data: st.DataObject
) -> None:
    first = np.array([x for piece in pieces for x in piece], np.float32)
    first[np.abs(first) == np.abs(first).max()] *= 1.0001  # nor does the reach itself
    cuts = sorted(data.draw(st.lists(st.integers(0, len(first)), max_size=4)))
    order = data.draw(st.permutations(range(len(first))))
    whole, split = Histogram(), Histogram()
    whole.update(first)
    for piece in np.split(first[list(order)], cuts):
        split.update(piece)
    # The split one may have begun with a smaller reach and doubled; never with a larger one.
    assert whole.reach == split.reach
    np.testing.assert_array_equal(whole.counts, split.counts)


def test_the_reach_doubles_and_no_count_is_lost() -> None:
    watcher, total = Histogram(), 0
    rng = np.random.default_rng(0)
    for power in range(-20, 20, 3):
        x = (rng.normal(size=1000) * 2.0**power).astype(np.float32)
        watcher.update(x)
        total += x.size
        assert watcher.counts.sum() == total
        assert watcher.reach >= max(abs(watcher.low), abs(watcher.high))
        assert np.log2(watcher.reach) == int(np.log2(watcher.reach))
        held = watcher.centers[watcher.counts > 0]
        width = 2 * watcher.reach / watcher.counts.size
        assert watcher.low - width <= held[0]
        assert held[-1] <= watcher.high + width


def test_memory_does_not_grow() -> None:
    watcher = Mse()
    sizes = set()
    for power in range(12):
        watcher.update(np.full((1 << power, 3), 2.0**power, np.float32))
        arrays = [v for v in vars(watcher).values() if isinstance(v, np.ndarray)]
        sizes.add(sum(array.nbytes for array in arrays))
    assert sizes == {8192 * 8}


def test_a_large_batch_is_sampled_but_its_extremes_are_exact() -> None:
    x = np.random.default_rng(0).normal(size=1 << 20).astype(np.float32)
    x[777_777], x[5] = 40.0, -30.0
    watcher = Histogram()
    watcher.update(x)
    assert (watcher.low, watcher.high) == (-30.0, 40.0)
    assert (1 << 13) <= watcher.counts.sum() <= (1 << 15)
    spread = np.sqrt(np.average(watcher.centers**2, weights=watcher.counts))
    assert spread == pytest.approx(1.0, abs=0.05)


def test_sampling_sees_every_channel_of_a_channels_last_batch() -> None:
    # A stride that divides the channel count would look at one channel again and again.
    x = np.zeros((1 << 12, 64), np.float32) + np.arange(1, 65, dtype=np.float32)
    watcher = Histogram()
    for _ in range(4):
        watcher.update(x)
    assert (watcher.counts > 0).sum() == 64


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_nan_and_infinity_are_refused(kind: str, bad: float) -> None:
    watcher = observer(kind)  # type: ignore[arg-type]
    watcher.update(np.ones(4, np.float32))
    with pytest.raises(ValueError, match="NaN or infinite"):
        watcher.update(np.array([1.0, bad, 2.0], np.float32))
    span = watcher.result()  # the bad batch left no trace
    assert (span.low, span.high) == pytest.approx((1.0, 1.0), rel=1e-3)


@pytest.mark.parametrize("kind", KINDS)
def test_nothing_seen_is_an_error(kind: str) -> None:
    watcher = observer(kind)  # type: ignore[arg-type]
    watcher.update(np.ones((0, 3), np.float32))
    with pytest.raises(ValueError, match="no value was seen"):
        watcher.result()


@pytest.mark.parametrize("kind", KINDS)
def test_zeros_only_give_an_empty_range(kind: str) -> None:
    watcher = observer(kind)  # type: ignore[arg-type]
    watcher.update(np.zeros((2, 5), np.float32))
    assert watcher.result() == Range(0.0, 0.0)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("scale", [1e-42, 1e-30, 1e30])
def test_extreme_magnitudes(kind: str, scale: float) -> None:
    x = (np.random.default_rng(0).normal(size=5000) * np.float64(scale)).astype(np.float32)
    span = seen(observer(kind), x)  # type: ignore[arg-type]
    assert float(x.min()) <= span.low <= 0 <= span.high <= float(x.max())


@pytest.mark.parametrize("kind", KINDS)
def test_after_a_relu_the_low_end_is_zero(kind: str) -> None:
    x = np.maximum(heavy_tailed(), 0)
    span = seen(observer(kind), x)  # type: ignore[arg-type]
    assert span.low == 0.0
    assert 0 < span.high <= x.max()


@pytest.mark.parametrize("kind", ["percentile", "mse", "entropy"])
@pytest.mark.parametrize("shift", [5.0, -9.0])
def test_values_far_from_zero_keep_their_far_end(kind: str, shift: float) -> None:
    x = (np.random.default_rng(0).uniform(size=20_000) + shift).astype(np.float32)
    span = seen(observer(kind), x)  # type: ignore[arg-type]
    far = span.high if shift > 0 else -span.low
    assert far == pytest.approx(np.abs(x).max(), rel=0.06)


@pytest.mark.parametrize("percentile", [99.0, 99.9])
def test_percentile_leaves_out_the_share_it_is_asked_to(percentile: float) -> None:
    x = np.random.default_rng(1).normal(size=100_000).astype(np.float32)
    span = seen(Percentile(percentile), x, count=20)
    outside = float(((x < span.low) | (x > span.high)).mean())
    assert outside == pytest.approx(1 - percentile / 100, rel=0.25)
    ends = [(x < span.low).mean(), (x > span.high).mean()]
    assert max(ends) < 2 * min(ends), "half at each end"


def test_mse_and_percentile_beat_minmax_on_a_heavy_tail() -> None:
    x = np.random.default_rng(2).standard_t(3, 60_000).astype(np.float32)
    widest = seen(MinMax(), x)
    assert squared_error(x, seen(Mse(), x)) < 0.95 * squared_error(x, widest)
    assert squared_error(x, seen(Mse(bits=4), x), 4) < 0.4 * squared_error(x, widest, 4)
    body = x[np.abs(x) < 6]
    assert squared_error(body, seen(Percentile(99.9), x)) < squared_error(body, widest) / 4


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_mse_is_close_to_the_best_clipping_there_is(seed: int) -> None:
    x = np.random.default_rng(seed).standard_t(3, 60_000).astype(np.float32)
    found = squared_error(x, seen(Mse(), x))
    low, high = float(x.min()), float(x.max())
    tried = [
        Range(low * f, high * g)
        for f in np.linspace(0.3, 1.0, 15)
        for g in np.linspace(0.3, 1.0, 15)
    ]
    assert found <= 1.03 * min(squared_error(x, span) for span in tried)


def test_mse_shrinks_each_end_alone() -> None:
    rng = np.random.default_rng(0)
    x = rng.uniform(-1.0, 1.0, 600_000).astype(np.float32)
    x[7] = 8.0
    span = seen(Mse(), x, count=20)
    assert span.low == pytest.approx(-1.0, abs=0.1)
    assert span.high < 5.0


def test_entropy_keeps_a_uniform_range_and_cuts_a_far_tail() -> None:
    rng = np.random.default_rng(0)
    uniform = rng.uniform(-1, 1, 60_000).astype(np.float32)
    kept = seen(Entropy(), uniform)
    assert kept.low < -0.9
    assert kept.high > 0.9
    tail = heavy_tailed()
    cut = seen(Entropy(), tail)
    assert cut.high < 0.8 * float(tail.max())
    assert cut.low > 0.8 * float(tail.min())
    bulk = tail[np.abs(tail) < 6]
    assert squared_error(bulk, cut) < squared_error(bulk, seen(MinMax(), tail))


def test_names() -> None:
    made = [type(observer(kind)) for kind in KINDS]  # type: ignore[arg-type]
    assert made == [MinMax, Percentile, Mse, Entropy]
