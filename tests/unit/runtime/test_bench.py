from __future__ import annotations

from array import array

import pytest

from edgebm.errors import UsageError
from edgebm.runtime.bench import CALLS_NEEDED, summarize, time_calls


def test_a_percentile_is_given_only_when_it_is_earned() -> None:
    for calls in (1, 63, 64, 129, 130, 661, 662, 6635, 6636):
        timing = summarize(array("q", range(1, calls + 1)))
        assert (timing.p90_ms is not None) == (calls >= 64)
        assert (timing.p95_ms is not None) == (calls >= 130)
        assert (timing.p99_ms is not None) == (calls >= 662)
        assert (timing.p999_ms is not None) == (calls >= 6636)
        assert timing.calls == calls


@pytest.mark.parametrize("level", [90.0, 95.0, 99.0, 99.9])
def test_the_numbers_of_calls_follow_from_the_rule(level: float) -> None:
    """Were the claim false, at most one call over it would be seen in less than 1 % of runs."""

    def accident(calls: int) -> float:
        under = level / 100
        return under**calls + calls * (1 - under) * under ** (calls - 1)

    needed = CALLS_NEEDED[level]
    assert accident(needed) < 0.01 <= accident(needed - 1)


def test_values_are_milliseconds() -> None:
    timing = summarize(array("q", [1_000_000, 2_000_000, 6_000_000]))
    assert (timing.p50_ms, timing.mean_ms, timing.max_ms) == (2.0, 3.0, 6.0)


def test_warm_up_is_not_counted_and_one_call_is_always_timed() -> None:
    seen: list[int] = []
    assert time_calls(lambda: seen.append(1), calls=5, warmup=2).calls == 5
    assert len(seen) == 7
    assert time_calls(lambda: None, seconds=1e-9, warmup=0).calls == 1


@pytest.mark.parametrize("limits", [{}, {"seconds": 1, "calls": 1}, {"seconds": 0}, {"calls": -1}])
def test_exactly_one_positive_limit(limits: dict[str, float]) -> None:
    with pytest.raises(UsageError):
        time_calls(lambda: None, **limits)  # type: ignore[arg-type]
