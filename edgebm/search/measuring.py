"""What is measured of candidates: whether they run at all, their memory, and their latency."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict

from edgebm.runtime.trial import Trial, try_out
from edgebm.runtime.turns import TURNS
from edgebm.search.board import board_of
from edgebm.search.candidates import Candidate
from edgebm.search.deadline import Deadline
from edgebm.search.job import Job, Progress
from edgebm.search.race import Race
from edgebm.search.records import Records
from edgebm.search.runner import built
from edgebm.search.simulate import is_simulated
from edgebm.target import Target

_SHARE = 0.5  # of the time that is left: a latency is worth nothing without a score


class Measuring:
    """Trials and races of one target, each from `records` where they are known already.

    Where a `board` was measured in place of this machine, its figures are taken and no others.
    `trials` has what was tried out, by `Candidate.answers_id`.
    """

    def __init__(
        self, job: Job, target: Target, records: Records, deadline: Deadline, progress: Progress
    ) -> None:
        self.board = board_of(records.journal, job, target)
        self._job, self._target, self._progress = job, target, progress
        self._records, self._deadline = records, deadline
        self.trials: dict[str, Trial] = {}

    @property
    def is_here(self) -> bool:
        """Whether latency is measured on this machine."""
        return self._target.is_host and self.board is None

    def try_out(self, candidates: Sequence[Candidate]) -> None:
        """Every artifact that runs here, once.

        Raises:
            OutOfTime: one was not tried out before, and there is no time to do it now.
        """
        runnable = {
            c.answers_id: c
            for c in reversed(candidates)  # so that the first thread count stays
            if not is_simulated(c, self._target)
        }
        for done, (key, candidate) in enumerate(runnable.items()):
            self._progress("try out", done, len(runnable))
            known = self._records.find("trial", candidate)
            if known is None:
                self._deadline.check()
                known = asdict(try_out(built(candidate, self._records.face), self._records.feeds))
                self._records.keep("trial", candidate, known)
            self.trials[key] = Trial(**known)
        self._progress("try out", len(runnable), len(runnable))

    def failed(self) -> dict[str, str]:
        """Why what was tried out does not run, by `Candidate.answers_id`."""
        return {key: trial.failed for key, trial in self.trials.items() if trial.failed}

    def race(self, candidates: Sequence[Candidate], kind: str = "turn") -> Race:
        """A race that is not run yet; turns of another `kind` are measured anew.

        Raises:
            UsageError: the board's figures are of artifacts that are built otherwise.
        """
        race = Race(candidates, self._records, self.failed(), self._deadline, kind)
        if self.board is not None:
            self.board.fill(race)
        return race

    def run(self, race: Race) -> None:
        """Time the candidates in turns, if latency is measured here.

        Raises:
            OutOfTime: see `Race.run`.
        """
        if self.is_here:
            race.deadline = self._deadline.part(_SHARE)
            self._progress("measure", 0, TURNS)
            race.run(
                self._job.options.measure_s,
                lambda done, total: self._progress("measure", done, total),
            )

    def earn_p99(self, race: Race, *ids: str) -> None:
        """More calls of a few candidates, if latency is measured here.

        Raises:
            OutOfTime: see `Race.run`.
        """
        if self.is_here:
            race.deadline = self._deadline
            race.earn_p99(
                ids,
                self._job.options.measure_s,
                lambda done, total: self._progress("measure p99", done, total),
            )
