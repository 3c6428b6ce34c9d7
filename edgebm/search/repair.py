"""Mend an integer model that is not accurate enough: the layers to blame compute in float."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

from edgebm.errors import BackendError, BackendFailed
from edgebm.ir.model import Model
from edgebm.search.analysis import Known, analysis_dict
from edgebm.search.build import build_lifted
from edgebm.search.candidates import Artifact, Candidate
from edgebm.search.choose import Choice, Outcome
from edgebm.search.deadline import Deadline
from edgebm.search.job import Job, Progress
from edgebm.search.judge import Score
from edgebm.search.layer_times import layer_times_us
from edgebm.search.lift import Layers, Lifting, harms
from edgebm.search.records import Records, machine
from edgebm.search.sensitivity import LayerError, LayerErrors, Sensitivity
from edgebm.search.simulate import compare_layers


@dataclass(frozen=True, slots=True)
class Tried:
    """One set of layers in float: what it scored, and whether that is enough."""

    layers: Layers
    artifact: Artifact
    value: float | None
    accepted: bool


@dataclass(slots=True)
class Repaired:
    """How far the repair of `base` came.

    `tried` is in order; `lifted` is the set that was taken, None where none was enough.
    """

    base: Outcome
    errors: LayerErrors
    float_us: Mapping[str, float]
    int8_us: Mapping[str, float]
    tried: list[Tried] = field(default_factory=list)
    lifted: Layers | None = None

    @property
    def artifact(self) -> Artifact | None:
        """The artifact with `lifted` in float."""
        return next((t.artifact for t in self.tried if t.layers == self.lifted), None)


def to_repair(choice: Choice) -> Outcome | None:
    """The integer candidate that would have been taken had it been accurate enough, or None."""
    chosen = choice.chosen
    faster = [
        outcome
        for outcome in choice.outcomes
        if outcome.status == "inaccurate" and outcome.candidate.artifact.dialect is not None
    ]
    best = min(faster, key=lambda o: o.measured.p50_ms or 0.0, default=None)
    if best is None or chosen.measured.p50_ms is None:
        return best
    return best if (best.measured.p50_ms or 0.0) < chosen.measured.p50_ms else None


class Repair:
    """One model, and everything measured about its layers on the way."""

    def __init__(self, job: Job, records: Records, progress: Progress) -> None:
        self._job = job
        self._records, self._progress = records, progress

    def errors(self, artifact: Artifact) -> tuple[Sensitivity, LayerErrors]:
        """The noise of every layer of `artifact` at the outputs, measured now or before."""
        assert artifact.dialect is not None
        sensitivity = Sensitivity(self._job, artifact.source, artifact.dialect)
        parts = {
            **machine(),
            "model": _sha256(self._job.model),
            "lowered": _sha256(artifact.lowered),
            "samples": self._job.calibration.digest(),
        }
        known = self._records.journal.find("sensitivity", parts)
        if known is not None:
            found = _errors_from_json(known)
            sensitivity.take_samples(found.samples)
            return sensitivity, found
        if not sensitivity.is_measurable:
            return sensitivity, LayerErrors(math.inf, ())
        found = sensitivity.measure(self._progress)
        self._records.journal.keep("sensitivity", parts, _errors_to_json(found), artifact.kind)
        return sensitivity, found

    def times_us(self, candidate: Candidate | None, decided: Model) -> dict[str, float]:
        """Measured time of each layer of `decided`; empty where it cannot be measured."""
        if candidate is None:
            return {}
        known: dict[str, float] | None = self._records.find("layer times", candidate)
        if known is None:
            try:
                known = layer_times_us(candidate, self._records.face, self._records.feeds, decided)
            except BackendError:
                known = {}  # every layer then costs the same
            self._records.keep("layer times", candidate, known)
        return known

    def look_at(self, base: Outcome, floats: Candidate | None) -> tuple[Sensitivity, Repaired]:
        """The errors and times of the layers of `base`, and nothing lifted; see `run`."""
        sensitivity, errors = self.errors(base.candidate.artifact)
        timed = base.candidate if floats is not None else None
        decided = base.candidate.artifact.source
        float_us, int8_us = (self.times_us(each, decided) for each in (floats, timed))
        return sensitivity, Repaired(base, errors, float_us, int8_us)

    def explain(self, found: Repaired, choice: Choice) -> dict[str, Any]:
        """The `analysis` of a report for `found.base`; see `search/analysis.py`."""
        artifact = found.base.candidate.artifact
        assert artifact.dialect is not None
        local = compare_layers(
            self._job, artifact.source, artifact.lowered, artifact.integer_nodes, self._progress
        )
        lifted = found.lifted or frozenset()
        repair = repair_dict(found, choice) if found.tried else None
        known = Known(local, found.float_us, found.int8_us, lifted, repair)
        return analysis_dict(
            self._job, artifact.source, artifact.dialect, found.errors, self._progress, known
        )

    def run(
        self,
        base: Outcome,
        floats: Candidate | None,
        score: Callable[[Artifact], tuple[float | None, bool]],
        deadline: Deadline,
    ) -> Repaired:
        """Look for the fewest and cheapest layers of `base` whose lifting is enough.

        Args:
            base: the candidate to repair.
            floats: the float model as `base` runs it, for what the layers cost in float; None
                where nothing can be timed: then all cost the same.
            score: value of a built artifact, and whether that is enough.
            deadline: when no further set is tried; the best by then is taken.
        """
        artifact, recipe = base.candidate.artifact, self._job.recipe.repair
        assert recipe is not None
        sensitivity, found = self.look_at(base, floats)
        predicted: dict[Layers, float] = {}

        def predict(layers: Layers) -> float:
            if layers not in predicted:
                predicted[layers] = sensitivity.sqnr_db(sensitivity.lifted(set(layers)))
            return predicted[layers]

        def attempt(layers: Layers) -> bool:
            if deadline.over:
                lifting.tries = 0
                return False
            self._progress("repair", len(found.tried), recipe.tries)
            # Scores go by this name, so that no two sets may have the same.
            kind = f"{artifact.kind}-mixed{len(layers)}"
            kind += "b" * sum(each.artifact.kind.startswith(kind) for each in found.tried)
            try:
                built = build_lifted(artifact, layers, kind, self._job.is_ignored)
            except BackendFailed:
                return False  # the runtime does not take this mixture
            value, accepted = score(built)
            found.tried.append(Tried(layers, built, value, accepted))
            return accepted

        noise = {layer.name: layer.noise for layer in found.errors.layers}
        ranked = harms(noise, found.float_us, found.int8_us)
        lifting = Lifting(ranked, predict, attempt, recipe.tries)
        found.lifted = lifting.find()
        self._progress("repair", recipe.tries, recipe.tries)
        return found


def to_explain(choice: Choice) -> Outcome | None:
    """The integer candidate that a report explains: the chosen one, or else the fastest."""
    ranged = [o for o in choice.outcomes if o.candidate.artifact.dialect and not o.measured.failed]
    if choice.chosen in ranged:
        return choice.chosen
    return min(ranged, key=lambda o: o.measured.p50_ms or 0.0, default=None)


def repair_dict(found: Repaired, choice: Choice) -> dict[str, Any]:
    """The `repair` of an analysis: what was lifted, what that bought, and what was tried."""
    after = _outcome_of(found, choice)
    lifted = sorted(found.lifted or ())
    return {
        "candidate": found.base.candidate.id,
        "lifted": lifted,
        "before": _point(found.base),
        "after": _point(after or found.base),
        "kept_gain": None if after is None else kept_gain(found.base, after, choice.baseline),
        "tried": [
            {"lifted": len(each.layers), "value": each.value, "accepted": each.accepted}
            for each in found.tried
        ],
    }


def repair_note(found: Repaired, choice: Choice) -> str:
    """What the repair did, in a sentence."""
    base, after = found.base, _outcome_of(found, choice)
    refused = f"{base.candidate.id} was refused ({base.why})"
    count = len(found.tried)
    if found.lifted is None:
        return f"{refused}; of {count} sets of layers in float, none that saves time is enough"
    names = ", ".join(sorted(found.lifted))
    if after is None:
        return (
            f"{refused}; with {names} in float it is accurate enough, but was not timed any more"
        )
    gain = kept_gain(base, after, choice.baseline)
    kept = "" if gain is None else f"; {gain:.0%} of the time that integers save is kept"
    return f"{refused}; with {names} in float it is accurate enough{kept}"


def kept_gain(base: Outcome, after: Outcome, baseline: Outcome) -> float | None:
    """Share of the time that integers alone save over float that is left after the repair."""
    times = [outcome.measured.p50_ms for outcome in (baseline, base, after)]
    if any(each is None for each in times):
        return None
    plain, integer, mended = (each or 0.0 for each in times)
    return None if plain <= integer else min(1.0, (plain - mended) / (plain - integer))


def _outcome_of(found: Repaired, choice: Choice) -> Outcome | None:
    """The fastest candidate of the repaired artifact, chosen or not."""
    artifact = found.artifact
    of_it = [o for o in choice.outcomes if artifact and o.candidate.artifact is artifact]
    chosen = [o for o in of_it if o.status == "chosen"]
    return min(chosen or of_it, key=lambda o: o.measured.p50_ms or math.inf, default=None)


def _point(outcome: Outcome) -> dict[str, Any]:
    return {"value": value_of(outcome.score), "p50_ms": outcome.measured.p50_ms}


def value_of(score: Score | None) -> float | None:
    """The figure that a judge looks at: the metric, or without one the SQNR."""
    if score is None:
        return None
    return score.agreement.sqnr_db if score.value is None else score.value


def _sha256(model: Model) -> str:
    return hashlib.sha256(model.to_bytes()).hexdigest()


def _errors_to_json(found: LayerErrors) -> dict[str, Any]:
    """Infinity, which JSON has not, as None."""
    return {
        "full_db": _finite(found.full_db),
        "samples": found.samples,
        "layers": [
            {**asdict(e), "alone_db": _finite(e.alone_db), "without_db": _finite(e.without_db)}
            for e in found.layers
        ],
    }


def _errors_from_json(raw: Mapping[str, Any]) -> LayerErrors:
    layers = tuple(
        LayerError(e["name"], e["op"], _infinite(e["alone_db"]), _infinite(e["without_db"]))
        for e in raw["layers"]
    )
    return LayerErrors(_infinite(raw["full_db"]), layers, raw["samples"])


def _finite(value: float) -> float | None:
    return value if math.isfinite(value) else None


def _infinite(value: float | None) -> float:
    return math.inf if value is None else value
