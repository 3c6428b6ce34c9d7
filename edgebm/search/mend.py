"""The stages that repair and explain: they bring `repair.py` together with what was measured."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

from edgebm.search.assemble import all_candidates
from edgebm.search.candidates import Artifact, Candidate
from edgebm.search.choose import Choice, Chooser, Outcome
from edgebm.search.deadline import Deadline, OutOfTime
from edgebm.search.job import Job, Progress
from edgebm.search.measuring import Measuring
from edgebm.search.race import Race
from edgebm.search.records import Records
from edgebm.search.repair import Repair, Repaired, repair_note, to_explain, value_of
from edgebm.search.scores import Scores
from edgebm.target import Target

_SHARE = 0.7  # of the time that is left: what was repaired is to be measured too


@dataclass(slots=True)
class Mend:
    """Repairs what would have been chosen had it been accurate enough; says what is to blame.

    `repaired` is what came of a repair, None without one.
    """

    job: Job
    target: Target
    records: Records
    measuring: Measuring
    deadline: Deadline
    progress: Progress
    repaired: Repaired | None = None

    def repair(
        self, choice: Choice, base: Outcome, chooser: Chooser, scores: Scores, race: Race
    ) -> Choice:
        """The choice once more, with `base` and some of its layers in float among the candidates.

        Args:
            choice: what was chosen so far.
            base: the integer candidate that was refused.
            chooser: chooses again.
            scores: of candidates.
            race: gets the new candidates and their times.

        Raises:
            OutOfTime: there was no time to build, score and time the repaired candidate.
        """
        self.deadline.check()
        before = choice.baseline.score

        def score(artifact: Artifact) -> tuple[float | None, bool]:
            # A layer that integers harm may be one that bf16 harms: the set is found in f32, and
            # bf16 takes part when the repaired artifact is chosen from.
            config = replace(base.candidate.config, precision="f32")
            candidate = replace(base.candidate, artifact=artifact, config=config)
            self.measuring.try_out([candidate])
            if candidate.answers_id in self.measuring.failed():
                return None, False
            found = scores(candidate)
            if found is None or before is None:
                raise OutOfTime
            return value_of(found), chooser.judge.accepts(before, found)[0]

        floats, part = self._as_float(base.candidate, race), self.deadline.part(_SHARE)
        self.repaired = self._repair.run(base, floats, score, part)
        if self.repaired.artifact is None:
            return choice
        fresh = all_candidates(self.job, self.target, [self.repaired.artifact])
        self.measuring.try_out(fresh)
        rivals = {o.candidate.id: o.candidate for o in (choice.baseline, choice.chosen, base)}
        again = self.measuring.race([*rivals.values(), *fresh], "turn again")
        self.measuring.run(again)
        race.join(again, after=base.candidate)
        return chooser.choose(race.candidates, race.results)

    def note(self, choice: Choice) -> str:
        """What a repair did, in a sentence; empty without one."""
        return "" if self.repaired is None else repair_note(self.repaired, choice)

    def explain(self, choice: Choice, race: Race) -> dict[str, Any] | None:
        """The `analysis` of the report: of what was repaired, or else of the integers chosen.

        None where no candidate has ranges of its own.
        """
        self.deadline.check()
        seen, base = self.repaired, to_explain(choice)
        if seen is None and base is not None:
            seen = self._repair.look_at(base, self._as_float(base.candidate, race))[1]
        return None if seen is None else self._repair.explain(seen, choice)

    @property
    def _repair(self) -> Repair:
        return Repair(self.job, self.records, self.progress)

    def _as_float(self, candidate: Candidate, race: Race) -> Candidate | None:
        """The float model as `candidate` runs it, for what its layers take; None if not timed."""
        if not self.measuring.is_here:
            return None
        artifact, config = candidate.artifact, candidate.config
        wanted = (artifact.runtime, "float", artifact.pruned)
        return next(
            c
            for c in race.candidates
            if (c.artifact.runtime, c.artifact.kind, c.artifact.pruned) == wanted
            and c.config == config
        )
