from __future__ import annotations

import numpy as np
import pytest

from edgebm.data.significance import NOT_JUDGED, mcnemar


def verdicts(*groups: tuple[int, int]) -> np.ndarray:
    return np.concatenate([np.full(count, verdict, np.int8) for verdict, count in groups])


@pytest.mark.parametrize(
    ("lost", "won"), [(0, 0), (1, 0), (0, 6), (3, 3), (10, 2), (37, 12), (400, 310), (9000, 9400)]
)
def test_against_the_binomial_test(lost: int, won: int) -> None:
    stats = pytest.importorskip("scipy.stats")
    before = verdicts((1, 50 + lost), (0, won))
    after = verdicts((1, 50), (0, lost), (1, won))
    found = mcnemar(before, after)
    assert (found.lost, found.won) == (lost, won)
    expected = stats.binomtest(lost, lost + won).pvalue if lost + won else 1.0
    assert found.p_value == pytest.approx(expected, rel=1e-8)


def test_a_case_by_hand() -> None:
    """Five lost and none won: 2 of 32 ways are as uneven."""
    found = mcnemar(verdicts((1, 9)), verdicts((1, 4), (0, 5)))
    assert found.p_value == pytest.approx(2 / 32)


def test_samples_without_a_verdict_have_no_part_in_it() -> None:
    before = np.array([1, NOT_JUDGED, 1, 0], np.int8)
    after = np.array([0, 0, NOT_JUDGED, 0], np.int8)
    assert (mcnemar(before, after).lost, mcnemar(before, after).won) == (1, 0)


def test_other_samples_cannot_be_compared() -> None:
    with pytest.raises(ValueError, match="3 verdicts before and 4 after"):
        mcnemar(np.ones(3, np.int8), np.ones(4, np.int8))
