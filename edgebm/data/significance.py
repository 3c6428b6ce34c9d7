"""What chance makes of counts: whether two models differ, and how sure a share is."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

from numpy.typing import NDArray

_Z95 = 1.959963984540054  # the normal distribution has 95 % within this many deviations
NOT_JUDGED = -1  # in place of a verdict: the label of that sample does not count


@dataclass(frozen=True, slots=True)
class Significance:
    """`lost` samples were right before and are wrong now, `won` the other way.

    `p_value` is how probable a split at least as uneven is where both models are as good.
    """

    lost: int
    won: int
    p_value: float


def mcnemar(before: NDArray[Any], after: NDArray[Any]) -> Significance:
    """McNemar's exact test, two-sided, on the verdicts of two models on the same samples.

    Args:
        before: array [samples], 1 for a right answer, 0 for a wrong one, NOT_JUDGED for neither.
        after: the other model's, in the same order.

    Raises:
        ValueError: not as many verdicts on both sides.

    Source:
        McNemar 1947, Psychometrika 12, 153-157; the exact form is the binomial test with 1/2.
    """
    if before.shape != after.shape:
        raise ValueError(f"{before.size} verdicts before and {after.size} after")
    judged = (before != NOT_JUDGED) & (after != NOT_JUDGED)
    first, second = before[judged] == 1, after[judged] == 1
    lost, won = int((first & ~second).sum()), int((~first & second).sum())
    return Significance(lost, won, _both_tails(min(lost, won), lost + won))


def wilson(hits: int, count: int) -> tuple[float, float]:
    """The 95 % interval of a share of which `hits` of `count` samples were seen.

    Raises:
        ValueError: `count` is 0, or `hits` not between 0 and `count`.

    Source:
        Wilson 1927, J. Am. Stat. Assoc. 22, 209-212.
    """
    if not 0 <= hits <= count or count == 0:
        raise ValueError(f"{hits} of {count} is no share")
    share, square = hits / count, _Z95**2
    middle = share + square / (2 * count)
    half = _Z95 * math.sqrt(share * (1 - share) / count + square / (4 * count**2))
    low, high = ((middle + side * half) / (1 + square / count) for side in (-1, 1))
    return max(0.0, low), min(1.0, high)


def _both_tails(fewer: int, changed: int) -> float:
    """2 P(X <= fewer) for X binomial with `changed` draws of 1/2, at most 1."""
    if 2 * fewer >= changed:
        return 1.0
    whole = math.lgamma(changed + 1) - changed * math.log(2)
    tail = math.fsum(
        math.exp(whole - math.lgamma(k + 1) - math.lgamma(changed - k + 1))
        for k in range(fewer + 1)
    )
    return min(1.0, 2 * tail)
