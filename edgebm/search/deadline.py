"""How long a run may take, and its early end by the user."""

from __future__ import annotations

import math
import time


class OutOfTime(BaseException):
    """Ends a stage when the time of the run is over.

    No `Exception`, for the reason that KeyboardInterrupt is none: it passes through a user's
    own program, which must not take it for a fault of its samples.
    """


class Deadline:
    """The end of a run: `--budget` after its begin, or an interruption.

    Stages ask `left_s()` before they begin something new, or let `check()` end them. What they
    had found by then must lie where the choice finds it.
    """

    def __init__(self, budget_s: float | None = None) -> None:
        self.budget_s = budget_s
        self.interrupted = False
        self._end = math.inf if budget_s is None else time.monotonic() + budget_s

    def left_s(self) -> float:
        """Seconds left; infinite without a limit, 0 once the user interrupted the run."""
        return 0.0 if self.interrupted else max(0.0, self._end - time.monotonic())

    @property
    def over(self) -> bool:
        return not self.left_s()

    def part(self, share: float) -> Deadline:
        """An end of its own for one stage, after this share of the time that is left."""
        left_s = self.left_s()
        return Deadline(None if left_s == math.inf else share * left_s)

    def check(self) -> None:
        """Go on only if there is time.

        Raises:
            OutOfTime: there is none.
        """
        if self.over:
            raise OutOfTime

    def interrupt(self) -> None:
        """No more time from now on: every stage that follows ends at once."""
        self.interrupted = True

    def why(self) -> str:
        """Why time is over, as the beginning of a sentence."""
        return (
            "interrupted"
            if self.interrupted
            else f"the {self.budget_s:g} s of --budget did not suffice"
        )
