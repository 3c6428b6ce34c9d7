"""The highest learning rate that does not undo what a model can already do."""

from __future__ import annotations

from collections.abc import Callable, Sequence

_SHARE, _FEWEST, _MOST = 1 / 50, 4, 32  # of all steps are tried at each rate


def trial_steps(steps: int) -> int:
    """How many of `steps` steps are tried at each rate."""
    return max(_FEWEST, min(_MOST, int(steps * _SHARE)))


def steady_factor(
    factors: Sequence[float], before: float, attempt: Callable[[float], float]
) -> float:
    """The highest of `factors` whose first steps leave the loss no higher than it was.

    A model that was cut and refitted is often nearer to its teacher than a high rate can keep it:
    training would take all its steps to come back to where it began. Lower rates always look
    better after a few steps, so the highest that does no harm is taken, not the best.

    Args:
        factors: of the rate that was asked for, the highest first.
        before: the loss at the start.
        attempt: takes a few steps at a factor, says the loss behind them, and leaves no trace.

    Returns:
        A factor; the one that did the least harm where all did some.
    """
    losses: list[float] = []
    for factor in factors:
        losses.append(attempt(factor))
        if losses[-1] <= before:
            return factor
    return factors[losses.index(min(losses))]
