"""Search one target: build, measure, score, choose."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from typing import TypeVar

from edgebm.backends import onnxruntime as onnxruntime_backend
from edgebm.backends.dialects import Grid, cpu_dialects
from edgebm.backends.qdq import lower
from edgebm.data.batch import Feeds
from edgebm.errors import BackendFailed, BackendUnavailable, UsageError
from edgebm.ir.annotate import has_ranges
from edgebm.ir.model import Model
from edgebm.ir.traits import MATMULS
from edgebm.passes.base import Context, Skip
from edgebm.passes.driver import run_passes
from edgebm.search.build import (
    build_float,
    build_integer,
    build_promises,
    build_weight_only,
    values_to_observe,
)
from edgebm.search.candidates import Artifact, Candidate, Face, enumerate_candidates
from edgebm.search.choose import Choice, Chooser, Outcome
from edgebm.search.job import Job, Progress
from edgebm.search.judge import Judge, Run, Score
from edgebm.search.promise import promise_note, with_made_up_ranges
from edgebm.search.race import TURNS, Measurement, Race
from edgebm.search.runner import Runner
from edgebm.search.simulate import compare_layers, provable, rank_grids
from edgebm.search.trial import Trial, try_out
from edgebm.target import Target

T = TypeVar("T")


@dataclass(slots=True)
class Found:
    """What the search of one target ended with. `notes` are decisions worth a sentence."""

    target: Target
    choice: Choice
    judge: Judge
    skips: list[Skip]
    notes: list[str]
    seconds: dict[str, float]
    layers: dict[str, dict[str, int]] = field(default_factory=dict)
    layer_sqnr: dict[str, float] = field(default_factory=dict)
    memory: dict[str, float | None] = field(default_factory=dict)
    warnings: list[str] = field(default_factory=list)

    @property
    def provable(self) -> Candidate:
        """What can run here in place of the chosen one and give its answers."""
        return provable(self.choice.chosen.candidate, self.target)


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
    """The stages for one target, in order; `seconds` records what each took."""

    def __init__(self, job: Job, target: Target, progress: Progress) -> None:
        check_buildable(target)
        self.job, self.target, self.progress = job, target, progress
        self.seconds: dict[str, float] = {}
        self.skips: list[Skip] = []
        self.failures: list[str] = []
        self.notes: list[str] = []
        self._grids: list[Grid] = []

    def run(self) -> Found:
        """All stages: passes, build, measure, score and choose.

        Raises:
            BackendFailed: no runtime of the target takes even the float model.
        """
        decided = self.passes()
        grids = self._timed("choose grid", lambda: self.grids(decided))
        artifacts = self._timed("build", lambda: self._build(decided, grids))
        candidates = self.candidates(artifacts)
        trials = self._timed("try out", lambda: self._try_out(candidates))
        failed = {key: trial.failed for key, trial in trials.items() if trial.failed}
        race = Race(candidates, self.job.face, self.job.sample(), failed)
        measured = self._timed("measure", lambda: self._measure(race))
        with ExitStack() as stack:
            reference = stack.enter_context(self._reference(candidates, measured))
            judge = self.job.judged_by(_as_run(reference))
            chooser = Chooser(
                judge,
                self.job.options.limits,
                self._scorer(judge),
                self._p99(race),
                self.job.recipe.prefer,
            )
            choice = self._timed("evaluate", lambda: chooser.choose(candidates, measured))
        if self.target.is_host:
            ids = [choice.chosen.candidate.id, choice.baseline.candidate.id]
            self._timed("measure p99", lambda: self._p99(race)(*ids))
        self.notes += [note] if (note := promise_note(choice)) else []
        found = Found(self.target, choice, judge, self.skips, self.notes, self.seconds)
        found.memory = {key: trial.peak_mib for key, trial in trials.items()}
        found.warnings += [f"{self.target.name}: {failure}" for failure in self.failures]
        found.layer_sqnr = self._timed("compare layers", lambda: self._compare(choice.chosen))
        self._inspect(found)
        return found

    def _timed(self, name: str, stage: Callable[[], T]) -> T:
        start = time.perf_counter()
        result = stage()
        self.seconds[name] = self.seconds.get(name, 0.0) + time.perf_counter() - start
        return result

    def passes(self) -> Model:
        context = self._context()
        self.skips += self.job.left_out
        steps = self.job.steps
        decided, seconds = run_passes(self.job.model, steps, context)
        for step, spent in zip(steps, seconds, strict=True):
            self.seconds[step.kind] = self.seconds.get(step.kind, 0.0) + spent
        return decided

    def _context(self) -> Context:
        return Context(
            samples=None if self.job.made_up else self.job.calibration,
            observe=lambda m: values_to_observe(m, self.target.runtimes, self.job.is_ignored),
            lower=self._lower,
            is_ignored=self.job.is_ignored,
            seed=self.job.options.seed,
            skips=self.skips,
            progress=self.progress,
        )

    def grids(self, decided: Model) -> list[Grid]:
        """Bits that do not overflow here, best first; settled once, when first needed."""
        if not self._grids:
            ranked, note = rank_grids(self.job, self.target, decided, self.progress)
            self._grids = ranked
            self.notes += [note] if note else []
        return self._grids

    def _lower(self, model: Model) -> Model:
        """The placement that every runtime comes close to, for passes that measure it."""
        dialect = cpu_dialects(self.target.runtimes[0], self.grids(model)[0])[0]
        return lower(model, dialect, self.job.is_ignored)[0]

    def _compare(self, chosen: Outcome) -> dict[str, float]:
        return compare_layers(self.job, chosen.candidate.artifact, self.progress)

    def _build(self, decided: Model, grids: Sequence[Grid]) -> list[Artifact]:
        """Float and integer artifacts of every runtime; the integer ones first (preferred)."""
        floats: list[Artifact] = []
        integers: list[Artifact] = []
        promised = with_made_up_ranges(self.job, self.target, decided, self._context())
        total = len(self.target.runtimes)
        for done, runtime in enumerate(self.target.runtimes):
            self.progress("build", done, total)
            try:
                floats.append(build_float(self.job.model, runtime))
            except BackendFailed as error:
                self.failures.append(str(error))
                continue
            if "int8" not in self.target.precisions:
                continue
            build = build_integer if has_ranges(decided) else build_weight_only
            for built in build(decided, runtime, grids, self.job.is_ignored):
                if isinstance(built, BackendFailed):
                    self.failures.append(str(built))
                else:
                    integers.append(built)
            if promised is not None:
                integers += build_promises(promised, runtime, grids, self.job.is_ignored)
        self.progress("build", total, total)
        if not floats:
            raise BackendFailed("no runtime takes the model: " + "; ".join(self.failures))
        return [*integers, *floats]

    def candidates(self, artifacts: Sequence[Artifact]) -> list[Candidate]:
        """Every way to run each of `artifacts` that is worth measuring."""
        wanted = self.job.recipe.precisions
        precisions = [p for p in ("f32", "bf16") if p in self.target.precisions and p in wanted]
        threads = self.job.options.threads or self.target.threads
        if "f32" not in precisions:
            raise UsageError(
                f"the target {self.target.name} has only {', '.join(self.target.precisions)}; the "
                "float model is what everything is compared with",
                hint="add f32 to 'precisions' of the target",
            )
        return enumerate_candidates(
            artifacts,
            threads=threads,
            precisions=precisions,
            static_shapes=self.job.static_shapes(),
        )

    def _try_out(self, candidates: Sequence[Candidate]) -> dict[str, Trial]:
        """Every artifact that runs here, once, by `Candidate.answers_id`."""
        runnable = {
            c.answers_id: c
            for c in reversed(candidates)  # so that the first thread count stays
            if provable(c, self.target) is c
        }
        trials = {}
        for done, (key, candidate) in enumerate(runnable.items()):
            self.progress("try out", done, len(runnable))
            trials[key] = try_out(candidate, self.job.face, self.job.sample())
        self.progress("try out", len(runnable), len(runnable))
        return trials

    def _measure(self, race: Race) -> dict[str, Measurement]:
        if not self.target.is_host:
            return race.results
        budget = self.job.options.budget_s
        self.progress("measure", 0, TURNS)
        return race.run(budget, lambda done, total: self.progress("measure", done, total))

    def _p99(self, race: Race) -> Callable[..., None]:
        def earn(*ids: str) -> None:
            if self.target.is_host:
                race.earn_p99(
                    ids,
                    self.job.options.budget_s,
                    lambda done, total: self.progress("measure p99", done, total),
                )

        return earn

    def _reference(
        self, candidates: Sequence[Candidate], measured: dict[str, Measurement]
    ) -> Runner:
        """The float model that agreement is measured against: the first that opens."""
        for candidate in candidates:
            if candidate.is_float_baseline and not measured[candidate.id].failed:
                return Runner(candidate, self.job.face)
        raise BackendFailed(
            "no runtime runs the float model: "
            + "; ".join(m.failed for m in measured.values() if m.failed)
        )

    def _scorer(self, judge: Judge) -> Callable[[Candidate], Score]:
        def score(candidate: Candidate) -> Score:
            label = f"evaluate {candidate.answers_id}"
            with Runner(provable(candidate, self.target), self.job.face) as runner:
                return judge.score(
                    _as_run(runner), lambda done, total: self.progress(label, done, total)
                )

        return score

    def _inspect(self, found: Found) -> None:
        """Read back what runs: layers by precision, and peak memory, before and after."""
        both = {o.candidate.id: o.candidate for o in (found.choice.baseline, found.choice.chosen)}
        for key, candidate in both.items():
            found.layers[key] = _executed(candidate, self.job.face)
        chosen = found.choice.chosen.candidate
        meant = sum(op in MATMULS for op in _ops(chosen.artifact))
        runs = found.layers[chosen.id].get("int8", 0)
        if not chosen.artifact.weight_bits and runs < meant and not self.target.missing():
            found.warnings.append(
                f"{meant} layers of {chosen.id} were meant to run in int8, {runs} do"
            )


def _executed(candidate: Candidate, face: Face) -> dict[str, int]:
    if candidate.artifact.runtime == "onnxruntime":
        artifact = candidate.artifact
        return onnxruntime_backend.executed_layers(dict(artifact.files), artifact.settings)
    with Runner(candidate, face) as runner:
        return runner.engine.executed()


def _ops(artifact: Artifact) -> list[str]:
    """Op types of the nodes that were lowered to integers."""
    integer = set(artifact.integer_nodes)
    return [node.op_type for node in artifact.lowered.nodes() if node.name in integer]


def _as_run(runner: Runner) -> Run:
    def run(feeds: Feeds) -> Feeds:
        return runner.run(feeds)

    return run
