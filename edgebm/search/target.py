"""Search one target: build, measure, score, choose."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from edgebm.backends.dialects import Grid
from edgebm.data.batch import Feeds
from edgebm.errors import BackendFailed
from edgebm.ir.model import Model
from edgebm.runtime.journal import Journal
from edgebm.search.assemble import Graphs, all_candidates, build_floats, build_integers
from edgebm.search.build import build_turned
from edgebm.search.candidates import AT_RUN_TIME, Artifact, Candidate
from edgebm.search.choose import Choice, Chooser
from edgebm.search.deadline import Deadline, OutOfTime
from edgebm.search.decide import Decisions
from edgebm.search.found import Found, inspect
from edgebm.search.half import STEP as CHECK_HALF
from edgebm.search.half import half_notes, wants_half, with_extents
from edgebm.search.job import Job, Progress
from edgebm.search.judge import Judge, Run, Score
from edgebm.search.measuring import Measuring
from edgebm.search.mend import Mend
from edgebm.search.promise import promise_note, with_made_up_ranges
from edgebm.search.race import Race
from edgebm.search.records import Records
from edgebm.search.repair import to_repair
from edgebm.search.runner import Runner
from edgebm.search.scores import Scores, judged_by
from edgebm.search.seconds import Seconds
from edgebm.search.simulate import compare_layers, provable
from edgebm.search.stages import Stages
from edgebm.search.stateful import carried_parts
from edgebm.search.turning import settle, untrained, waiting, why_not_train
from edgebm.target import Target

_TURN = "turn GRU"


class Search:
    """The stages for one target, in order.

    A stage leaves what it finds in the attributes below and in the journal, entry by entry, so
    that the best so far is known at any time. It looks first whether `records` knows a thing
    already, and asks `deadline` before it begins something new.
    """

    def __init__(
        self,
        job: Job,
        target: Target,
        progress: Progress,
        journal: Journal | None = None,
        deadline: Deadline | None = None,
    ) -> None:
        self.job, self.target, self.progress = job, target, progress
        self.journal, self.deadline = journal or Journal(), deadline or Deadline()
        self.stages = Stages(self.deadline, Seconds(job, target, self.journal))
        self.decisions = Decisions(job, target, self.tick, self.stages.seconds.note)
        self.records = Records(self.journal, job.face, job.sample())
        self.measuring = Measuring(job, target, self.records, self.deadline, progress)
        self.failures: list[str] = []
        self.integers: list[Artifact] = []
        self.scores: Scores | None = None

    def run(self) -> Found:
        """All stages: passes, build, try out, measure, evaluate and choose.

        A stage that time or the user cuts off leaves what it has found; those after it begin
        nothing new, and the best of what is known by then is taken.

        Raises:
            BackendFailed: no runtime of the target takes even the float model.
            KeyboardInterrupt: the user ended it before anything was measured and judged.
        """
        decided = self.stages.run("quantize", self.decisions.passes, noted=False)
        floats = build_floats(self.job, self.target, self.deadline, self.failures, self._half)
        mend = None
        if decided is not None:
            grids = self.stages.run("choose grid", lambda: self.decisions.grids(decided))
            noted = self._half(decided)
            graphs = replace(self._graphs(noted or decided), has_extents=noted is not None)
            self.stages.run("build", lambda: self._build(graphs, grids or [], floats))
            mend = self._mend()
        candidates = all_candidates(self.job, self.target, [*self.integers, *floats])
        self.stages.run("try out", lambda: self.measuring.try_out(candidates))
        race = self.measuring.race(candidates)
        self.stages.run("measure", lambda: self.measuring.run(race))
        if decided is not None and waiting(race):
            self._train(decided, race)
        reference = self._reference(race)
        with Runner(provable(reference, self.target), self.job.face) as opened:
            judge = self.job.judged_by(self.job.as_run(_as_run(opened)))
            scores = self.scores = self._scored_by(judge, reference)
            self.stages.showable = lambda: bool(scores.known)
            chooser = self._chooser(judge, scores, race)
            choice = self.stages.run("evaluate", lambda: self._evaluate(chooser, race))
            if choice is None:  # cut off: nothing more is run, and the best so far is chosen
                choice = chooser.choose(race.candidates, race.results)
            choice = self._repaired(mend, choice, chooser, race)
        ids = choice.chosen.candidate.id, choice.baseline.candidate.id
        self.stages.run("measure p99", lambda: self.measuring.earn_p99(race, *ids))
        found = self._found(choice, judge)
        self.stages.run("compare layers", lambda: self._compare(found))
        self._explain(mend, found, race)
        self.stages.run("inspect", lambda: self._inspect(found))
        return self._ended(found)

    def _half(self, model: Model) -> Model | None:
        """`model` with its extents; None where nothing is written in FP16, or time is over."""
        if not wants_half(self.job, self.target):
            return None
        return self.stages.run(CHECK_HALF, lambda: with_extents(self.job, model, self.tick))

    def tick(self, step: str, done: int, total: int) -> None:
        """Progress of work that may be cut off here.

        Raises:
            OutOfTime: there is no time for the rest.
        """
        self.progress(step, done, total)
        if done < total:
            self.deadline.check()

    def _mend(self) -> Mend:
        return Mend(
            self.job,
            self.target,
            self.records,
            self.measuring,
            self.deadline,
            self.tick,
        )

    def _graphs(self, decided: Model) -> Graphs:
        """`decided`, and its GRUs turned: where nothing can be timed before, trained as well."""
        if self.measuring.is_here:
            return Graphs(decided, untrained=untrained(self.job, decided))
        turned = self.stages.run(_TURN, lambda: self.decisions.turned(decided), noted=False)
        return Graphs(decided, turned=turned)

    def _train(self, decided: Model, race: Race) -> None:
        """Turn GRUs where that would be the fastest; what was timed untrained leaves the race."""
        note = why_not_train(race)
        trained: list[Artifact] = []
        if note:
            self.decisions.notes.append(note)
        else:
            trained = self.stages.run(_TURN, lambda: self._trained(decided), noted=False) or []
        fresh = settle(race, trained)
        self.stages.run("try out", lambda: self.measuring.try_out(fresh))
        failed = self.measuring.failed()
        for candidate in fresh:
            race.results[candidate.id].failed = failed.get(candidate.answers_id, "")

    def _trained(self, decided: Model) -> list[Artifact]:
        """The artifacts of the model with its GRUs turned."""
        turned = self.decisions.turned(decided)
        if turned is None:
            return []
        grids = self.decisions.grids(decided)
        found: list[Artifact | BackendFailed] = []
        for runtime in self.target.runtimes:
            found += build_turned(turned, runtime, grids, self.job.is_ignored)
        pruned = self.job.is_student
        return [replace(each, pruned=pruned) for each in found if isinstance(each, Artifact)]

    def _build(self, graphs: Graphs, grids: Sequence[Grid], floats: Sequence[Artifact]) -> None:
        """Integer artifacts for every runtime that takes the float model."""
        if "int8" not in self.target.precisions:
            return
        self.deadline.check()
        promised = with_made_up_ranges(
            self.job, self.target, graphs.decided, self.decisions.context()
        )
        graphs = replace(graphs, promised=promised)
        runtimes = tuple(dict.fromkeys(artifact.runtime for artifact in floats))
        for done, runtime in enumerate(runtimes):
            self.tick("build", done, len(runtimes))
            self.integers += build_integers(self.job, runtime, graphs, grids, self.failures)
        self.progress("build", len(runtimes), len(runtimes))

    def _reference(self, race: Race) -> Candidate:
        """The float model that agreement is measured against: the first that runs."""
        for candidate in race.candidates:
            if candidate.is_float_baseline and not race.results[candidate.id].failed:
                return candidate
        raise BackendFailed(
            "no runtime runs the float model: "
            + "; ".join(m.failed for m in race.results.values() if m.failed)
        )

    def _scored_by(self, judge: Judge, reference: Candidate) -> Scores:
        def score(candidate: Candidate) -> Score:
            label = f"evaluate {candidate.answers_id}"
            with Runner(provable(candidate, self.target), self.job.face) as runner:
                return judge.score(
                    self.job.as_run(_as_run(runner, self.deadline)),
                    lambda done, total: self.tick(label, done, total),
                )

        parts = self.records.parts(reference)
        judged = judged_by(judge, self.job.evaluation, parts, carried_parts(self.job.states))
        if judged is None and self.journal.path is not None:
            self.journal.notes.append(
                f"scores of {judge.name} are not kept: only those of a plain function in a file "
                "can be told from others"
            )
        return Scores(score, judged, self.records, self.deadline)

    def _chooser(self, judge: Judge, scores: Scores, race: Race) -> Chooser:
        def earn_p99(key: str) -> None:
            try:
                self.measuring.earn_p99(race, key)
            except OutOfTime:
                self.stages.undone.append("measure p99")

        prefer = self.job.recipe.prefer
        return Chooser(judge, self.job.options.limits, scores, earn_p99, prefer)

    def _evaluate(self, chooser: Chooser, race: Race) -> Choice:
        choice = chooser.choose(race.candidates, race.results)
        if self.scores is not None and self.scores.lacking:
            raise OutOfTime
        return choice

    def _repaired(self, mend: Mend | None, choice: Choice, chooser: Chooser, race: Race) -> Choice:
        """The choice after a repair, if the recipe has one and there is something to repair."""
        base, scores = to_repair(choice), self.scores
        if mend is None or base is None or scores is None or self.job.recipe.repair is None:
            return choice
        after = self.stages.run("repair", lambda: mend.repair(choice, base, chooser, scores, race))
        return after or choice

    def _explain(self, mend: Mend | None, found: Found, race: Race) -> None:
        """Which layer is to blame, where the recipe wants it or something was repaired."""
        if mend is None or not (mend.repaired or self.job.recipe.explain):
            return
        found.notes += [note] if (note := mend.note(found.choice)) else []
        found.analysis = self.stages.run("explain", lambda: mend.explain(found.choice, race))

    def _found(self, choice: Choice, judge: Judge) -> Found:
        notes = [*self.job.notes, *self.decisions.notes, promise_note(choice)]
        notes += half_notes(self.job, choice.chosen.candidate.artifact)
        found = Found(
            self.target,
            choice,
            judge,
            self.decisions.skips,
            [note for note in notes if note],
            self.stages.seconds.spent,
        )
        found.memory = self._memory()
        board = self.measuring.board
        found.measured_on = None if board is None else board.machine
        found.warnings += [] if board is None else board.warnings()
        found.warnings += [f"{self.target.name}: {failure}" for failure in self.failures]
        return found

    def _memory(self) -> dict[str, float | None]:
        """Peak memory where the latency was measured; another CPU's is not this one's."""
        if self.measuring.board is not None:
            return self.measuring.board.peaks_mib
        if not self.target.is_host:
            return {}
        return {key: trial.peak_mib for key, trial in self.measuring.trials.items()}

    def _compare(self, found: Found) -> None:
        self.deadline.check()
        artifact = found.choice.chosen.candidate.artifact
        # Where ranges are taken at run time there is no Q/DQ form to look at.
        if artifact.decided is not None and artifact.kind not in AT_RUN_TIME:
            found.layer_sqnr = compare_layers(
                self.job, artifact.decided, artifact.lowered, artifact.integer_nodes, self.tick
            )

    def _inspect(self, found: Found) -> None:
        self.deadline.check()
        inspect(found, self.job.face)

    def _ended(self, found: Found) -> Found:
        """Say what was cut off or left out, if anything was."""
        found.undone = tuple(dict.fromkeys(self.stages.undone))
        found.interrupted = self.deadline.interrupted
        if found.undone:
            found.warnings.append(
                f"{self.target.name}: {self.deadline.why()}; not done, or not to its end: "
                f"{', '.join(found.undone)}. The best that was known by then was taken"
            )
        return found


def _as_run(runner: Runner, deadline: Deadline | None = None) -> Run:
    """The runner as a function, which ends when there is no more time for `deadline`'s run."""

    def run(feeds: Feeds) -> Feeds:
        if deadline is not None:
            deadline.check()
        return runner.run(feeds)

    return run
