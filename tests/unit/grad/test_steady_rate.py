from __future__ import annotations

import pytest

pytest.importorskip("torch", reason="torch is not installed")

from edgebm.grad.steady_rate import steady_factor, trial_steps


@pytest.mark.parametrize(
    ("losses", "expected"),
    [
        ({1.0: 0.9, 0.25: 0.1, 0.06: 0.5}, 1.0),  # not the best: the highest that does no harm
        ({1.0: 1.5, 0.25: 1.0, 0.06: 0.2}, 0.25),
        ({1.0: 9.0, 0.25: 3.0, 0.06: 2.0}, 0.06),
        ({1.0: float("inf"), 0.25: 5.0, 0.06: 7.0}, 0.25),
    ],
)
def test_the_highest_that_does_no_harm(losses: dict[float, float], expected: float) -> None:
    assert steady_factor(tuple(losses), 1.0, losses.__getitem__) == expected


def test_lower_ones_are_not_tried_without_need() -> None:
    tried: list[float] = []

    def attempt(factor: float) -> float:
        tried.append(factor)
        return 0.5

    steady_factor((1.0, 0.25), 1.0, attempt)
    assert tried == [1.0]


def test_a_small_part_of_the_steps_is_tried() -> None:
    assert [trial_steps(steps) for steps in (1, 200, 1000, 100_000)] == [4, 4, 20, 32]
