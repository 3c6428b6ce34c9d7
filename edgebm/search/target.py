"""Search one target: build, measure, score, choose."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, replace
from functools import cached_property
from typing import TypeVar

from edgebm.backends.dialects import Grid, cpu_dialects
from edgebm.backends.qdq import lower
from edgebm.data.batch import Feeds
from edgebm.errors import BackendFailed, BackendUnavailable
from edgebm.ir.model import Model
from edgebm.passes.base import Context, Skip
from edgebm.passes.driver import run_passes
from edgebm.search.assemble import all_candidates, build_floats, build_integers
from edgebm.search.build import values_to_observe
from edgebm.search.candidates import DYNAMIC, Artifact, Candidate
from edgebm.search.choose import Choice, Chooser, Outcome
from edgebm.search.deadline import Deadline, OutOfTime
from edgebm.search.found import Found, inspect
from edgebm.search.job import Job, Progress
from edgebm.search.journal import Journal
from edgebm.search.judge import Judge, Run, Score
from edgebm.search.promise import promise_note, with_made_up_ranges
from edgebm.search.race import TURNS, Race
from edgebm.search.records import Records
from edgebm.search.repair import Repair, Repaired, repair_note, to_explain, to_repair, value_of
from edgebm.search.runner import Runner
from edgebm.search.scores import Scores, judged_by
from edgebm.search.seconds import Seconds
from edgebm.search.simulate import compare_layers, provable, rank_grids
from edgebm.search.stages import Stages
from edgebm.search.trial import Trial, try_out
from edgebm.target import Target

T = TypeVar("T")
_RUNS = Trial(None)  # of what cannot be tried out here
_REPAIR_SHARE = 0.7  # of the time that is left: what was repaired is to be measured too
_MEASURE_SHARE = 0.5  # of the time that is left: a latency is worth nothing without a score


def check_buildable(target: Target) -> None:
    """Refuse a target that nothing can be built for.

    Raises:
        BackendUnavailable: it needs TensorRT.
    """
    if "tensorrt" in target.runtimes:
        raise BackendUnavailable(
            f"{target.name} needs TensorRT, which this version of edgebm does not build for",
            hint="CPU targets work: 'edgebm targets' lists them",
        )


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
        check_buildable(target)
        self.job, self.target, self.progress = job, target, progress
        self.journal, self.deadline = journal or Journal(), deadline or Deadline()
        self.stages = Stages(self.deadline, Seconds(job, target, self.journal))
        self.skips: list[Skip] = []
        self.failures: list[str] = []
        self.notes: list[str] = []
        self.integers: list[Artifact] = []
        self.trials: dict[str, Trial] = {}
        self.scores: Scores | None = None
        self.decided: Model | None = None
        self.repaired: Repaired | None = None
        self._grids: list[Grid] = []

    def run(self) -> Found:
        """All stages: passes, build, try out, measure, evaluate and choose.

        A stage that time or the user cuts off leaves what it has found; those after it begin
        nothing new, and the best of what is known by then is taken.

        Raises:
            BackendFailed: no runtime of the target takes even the float model.
            KeyboardInterrupt: the user ended it before anything was measured and judged.
        """
        decided = self.decided = self.stages.run("quantize", self.passes, noted=False)
        floats = build_floats(self.job, self.target, self.deadline, self.failures)
        if decided is not None:
            grids = self.stages.run("choose grid", lambda: self.grids(decided))
            self.stages.run("build", lambda: self._build(decided, grids or [], floats))
        candidates = all_candidates(self.job, self.target, [*self.integers, *floats])
        self.stages.run("try out", lambda: self._try_out(candidates))
        failed = {key: trial.failed for key, trial in self.trials.items() if trial.failed}
        race = Race(candidates, self.records, failed, self.deadline)
        self.stages.run("measure", lambda: self._measure(race))
        reference = self._reference(race)
        with Runner(reference, self.job.face) as opened:
            judge = self.job.judged_by(_as_run(opened))
            self.scores = self._scored_by(judge, reference)
            self.stages.showable = lambda: bool(self.scores and self.scores.known)
            chooser = self._chooser(judge, self.scores, race)
            choice = self.stages.run("evaluate", lambda: self._evaluate(chooser, race))
            if choice is None:  # cut off: nothing more is run, and the best so far is chosen
                choice = chooser.choose(candidates, race.results)
            if self.job.recipe.repair and self.decided and (base := to_repair(choice)):
                first = choice
                repair = self.stages.run(
                    "repair", lambda: self._repair(first, base, chooser, race)
                )
                choice = repair or first
        chosen, baseline = choice.chosen.candidate, choice.baseline.candidate
        self.stages.run("measure p99", lambda: self._earn_p99(race, chosen.id, baseline.id))
        found = self._found(choice, judge)
        self.stages.run("compare layers", lambda: self._compare(found))
        if self.repaired or self.job.recipe.explain:
            self.stages.run("explain", lambda: self._explain(found, race))
        self.stages.run("inspect", lambda: self._inspect(found))
        return self._ended(found)

    @cached_property
    def records(self) -> Records:
        """What the journal knows of candidates on the sample that is timed."""
        return Records(self.journal, self.job.face, self.job.sample())

    def tick(self, step: str, done: int, total: int) -> None:
        """Progress of work that may be cut off here.

        Raises:
            OutOfTime: there is no time for the rest.
        """
        self.progress(step, done, total)
        if done < total:
            self.deadline.check()

    def passes(self) -> Model:
        """The recipe's steps, each noted with its seconds."""
        context = self._context()
        self.skips += self.job.left_out
        steps = self.job.steps
        decided, seconds = run_passes(self.job.model, steps, context)
        for step, spent in zip(steps, seconds, strict=True):
            self.stages.seconds.note(step.kind, spent)
        return decided

    def _context(self) -> Context:
        return Context(
            samples=None if self.job.made_up else self.job.calibration,
            observe=lambda m: values_to_observe(m, self.target.runtimes, self.job.is_ignored),
            lower=self._lower,
            is_ignored=self.job.is_ignored,
            seed=self.job.options.seed,
            skips=self.skips,
            progress=self.tick,
        )

    def grids(self, decided: Model) -> list[Grid]:
        """Bits that do not overflow here, best first; settled once, when first needed."""
        if not self._grids:
            ranked, note = rank_grids(self.job, self.target, decided, self.tick)
            self._grids = ranked
            self.notes += [note] if note else []
        return self._grids

    def _lower(self, model: Model) -> Model:
        """The placement that every runtime comes close to, for passes that measure it."""
        dialect = cpu_dialects(self.target.runtimes[0], self.grids(model)[0])[0]
        return lower(model, dialect, self.job.is_ignored)[0]

    def _build(self, decided: Model, grids: Sequence[Grid], floats: Sequence[Artifact]) -> None:
        """Integer artifacts for every runtime that takes the float model."""
        if "int8" not in self.target.precisions:
            return
        self.deadline.check()
        promised = with_made_up_ranges(self.job, self.target, decided, self._context())
        for done, artifact in enumerate(floats):
            self.tick("build", done, len(floats))
            self.integers += build_integers(
                self.job, artifact.runtime, (decided, promised), grids, self.failures
            )
        self.progress("build", len(floats), len(floats))

    def _try_out(self, candidates: Sequence[Candidate]) -> None:
        """Every artifact that runs here, once, by `Candidate.answers_id`."""
        runnable = {
            c.answers_id: c
            for c in reversed(candidates)  # so that the first thread count stays
            if provable(c, self.target) is c
        }
        for done, (key, candidate) in enumerate(runnable.items()):
            self.progress("try out", done, len(runnable))
            known = self.records.find("trial", candidate)
            if known is None:
                self.deadline.check()
                known = asdict(try_out(candidate, self.records.face, self.records.feeds))
                self.records.keep("trial", candidate, known)
            self.trials[key] = Trial(**known)
        self.progress("try out", len(runnable), len(runnable))

    def _measure(self, race: Race) -> None:
        if self.target.is_host:
            race.deadline = self.deadline.part(_MEASURE_SHARE)
            self.progress("measure", 0, TURNS)
            race.run(
                self.job.options.measure_s,
                lambda done, total: self.progress("measure", done, total),
            )

    def _earn_p99(self, race: Race, *ids: str) -> None:
        if self.target.is_host:
            race.deadline = self.deadline
            race.earn_p99(
                ids,
                self.job.options.measure_s,
                lambda done, total: self.progress("measure p99", done, total),
            )

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
                    _as_run(runner, self.deadline),
                    lambda done, total: self.tick(label, done, total),
                )

        judged = judged_by(judge, self.job.evaluation, self.records.parts(reference))
        if judged is None and self.journal.path is not None:
            self.journal.notes.append(
                f"scores of {judge.name} are not kept: only those of a plain function in a file "
                "can be told from others"
            )
        return Scores(score, judged, self.records, self.deadline)

    def _chooser(self, judge: Judge, scores: Scores, race: Race) -> Chooser:
        def earn_p99(key: str) -> None:
            try:
                self._earn_p99(race, key)
            except OutOfTime:
                self.stages.undone.append("measure p99")

        prefer = self.job.recipe.prefer
        return Chooser(judge, self.job.options.limits, scores, earn_p99, prefer)

    def _evaluate(self, chooser: Chooser, race: Race) -> Choice:
        choice = chooser.choose(race.candidates, race.results)
        if self.scores is not None and self.scores.lacking:
            raise OutOfTime
        return choice

    def _repair(self, choice: Choice, base: Outcome, chooser: Chooser, race: Race) -> Choice:
        """`base` would have won had it been accurate: the same with some layers in float."""
        assert self.decided is not None
        self.deadline.check()
        before = choice.baseline.score

        def score(artifact: Artifact) -> tuple[float | None, bool]:
            candidate = replace(base.candidate, artifact=artifact)
            self._try_out([candidate])
            if self.trials.get(candidate.answers_id, _RUNS).failed:
                return None, False
            found = self.scores(candidate) if self.scores is not None else None
            if found is None or before is None:
                raise OutOfTime
            return value_of(found), chooser.judge.accepts(before, found)[0]

        repair = Repair(self.job, self.decided, self.records, self.tick)
        floats = self._as_float(base.candidate, race)
        part = self.deadline.part(_REPAIR_SHARE)
        self.repaired = repair.run(base, floats, score, part)
        if self.repaired.artifact is None:
            return choice
        fresh = all_candidates(self.job, self.target, [self.repaired.artifact])
        self._try_out(fresh)
        rivals = {c.id: c for o in (choice.baseline, choice.chosen, base) for c in [o.candidate]}
        failed = {key: trial.failed for key, trial in self.trials.items() if trial.failed}
        again = Race([*rivals.values(), *fresh], self.records, failed, self.deadline, "turn again")
        self._measure(again)
        race.join(again, after=base.candidate)
        return chooser.choose(race.candidates, race.results)

    def _as_float(self, candidate: Candidate, race: Race) -> Candidate | None:
        """The float model as `candidate` runs it, for what its layers take; None if not timed."""
        if not self.target.is_host:
            return None
        runtime, config = candidate.artifact.runtime, candidate.config
        return next(
            c
            for c in race.candidates
            if (c.artifact.runtime, c.artifact.kind) == (runtime, "float") and c.config == config
        )

    def _explain(self, found: Found, race: Race) -> None:
        """Which layer is to blame, where the recipe wants it or something was repaired."""
        if self.repaired:
            self.notes += [repair_note(self.repaired, found.choice)]
        self.deadline.check()
        if self.decided is None:
            return
        repair = Repair(self.job, self.decided, self.records, self.tick)
        seen, base = self.repaired, to_explain(found.choice)
        if seen is None and base is not None:
            seen = repair.look_at(base, self._as_float(base.candidate, race))[1]
        found.analysis = None if seen is None else repair.explain(seen, found.choice)

    def _found(self, choice: Choice, judge: Judge) -> Found:
        self.notes += [note] if (note := promise_note(choice)) else []
        found = Found(
            self.target, choice, judge, self.skips, self.notes, self.stages.seconds.spent
        )
        found.memory = {key: trial.peak_mib for key, trial in self.trials.items()}
        found.warnings += [f"{self.target.name}: {failure}" for failure in self.failures]
        return found

    def _compare(self, found: Found) -> None:
        self.deadline.check()
        artifact = found.choice.chosen.candidate.artifact
        # Where ranges are taken at run time there is no Q/DQ form to look at.
        if self.decided is not None and artifact.integer_nodes and artifact.kind != DYNAMIC:
            found.layer_sqnr = compare_layers(
                self.job, self.decided, artifact.lowered, artifact.integer_nodes, self.tick
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
