"""The end of a run. No time is asserted: a limit is either long over or years away."""

from __future__ import annotations

import math

import pytest

from edgebm.search.deadline import Deadline, OutOfTime

YEAR_S = 3e7


def test_without_a_limit_there_is_always_time() -> None:
    deadline = Deadline()
    assert deadline.left_s() == math.inf
    assert deadline.part(0.5).left_s() == math.inf
    deadline.check()


def test_a_limit_that_is_over_ends_a_stage() -> None:
    deadline = Deadline(1e-9)
    assert deadline.over
    assert deadline.left_s() == 0
    assert deadline.part(0.5).over
    with pytest.raises(OutOfTime):
        deadline.check()
    assert "--budget" in deadline.why()


def test_an_interruption_is_the_end_of_time() -> None:
    deadline = Deadline(YEAR_S)
    assert not deadline.over
    assert YEAR_S / 3 < deadline.part(0.5).left_s() <= YEAR_S / 2
    deadline.interrupt()
    assert deadline.over
    assert deadline.interrupted
    assert deadline.part(0.5).over
    assert deadline.why() == "interrupted"
    endless = Deadline()
    endless.interrupt()
    assert endless.part(0.5).over


def test_the_code_of_a_user_does_not_catch_it() -> None:
    def careless() -> None:
        try:
            Deadline(1e-9).check()
        except Exception:  # noqa: BLE001 - as users write
            pytest.fail("a user's own program would have taken it for its fault")

    with pytest.raises(OutOfTime):
        careless()
