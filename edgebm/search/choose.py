"""Take the fastest candidate that keeps every limit; say of each other one why not."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

from edgebm.errors import BackendError
from edgebm.runtime.turns import Measurement
from edgebm.search.candidates import Candidate
from edgebm.search.judge import Judge, Score

MEGABYTE = 1e6
_ABOUT = 1.1  # times a size are as good as that size
_ENDED = "the run ended before it was evaluated"
_PROMISE = "only timed: its ranges are those of made-up inputs; it needs samples (-d)"


@dataclass(frozen=True, slots=True)
class Limits:
    """What the user asked for; None where nothing. Latency is the p99, size 10^6 bytes."""

    max_latency_ms: float | None = None
    max_size_mb: float | None = None


@dataclass(slots=True)
class Outcome:
    """Everything known of one candidate at the end."""

    candidate: Candidate
    measured: Measurement
    score: Score | None = None
    status: str = ""
    why: str = ""


@dataclass(slots=True)
class Choice:
    """The chosen candidate, the float baseline, and all outcomes in the order tried.

    `missed` holds a sentence for each limit that the chosen one does not keep.
    """

    chosen: Outcome
    baseline: Outcome
    outcomes: list[Outcome]
    missed: list[str] = field(default_factory=list)


class Chooser:
    """Tries candidates, the preferred first, and stops at the first that keeps every limit."""

    def __init__(
        self,
        judge: Judge,
        limits: Limits,
        score: Callable[[Candidate], Score | None],
        earn_p99: Callable[[str], None],
        prefer: str = "latency",
    ) -> None:
        """`prefer` is "latency" or "size"; `score` gives None where time is over."""
        self.judge, self.limits = judge, limits
        self._by_size = prefer == "size"
        self._score, self._earn_p99 = score, earn_p99
        self._scores: dict[str, Score] = {}

    def choose(
        self, candidates: Sequence[Candidate], measured: Mapping[str, Measurement]
    ) -> Choice:
        """Choose among `candidates`.

        Where nothing was timed their order is the preference. The float baseline, the fastest
        one, is always scored; if there was no time even for that, it is taken as it is.
        """
        outcomes = [Outcome(c, measured[c.id]) for c in candidates]
        for outcome in outcomes:
            if outcome.measured.failed:
                outcome.status, outcome.why = "failed", outcome.measured.failed
            elif outcome.candidate.artifact.promise:
                outcome.status, outcome.why = "needs_samples", _PROMISE
        alive = _timed([o for o in outcomes if not o.status])
        baseline = min((o for o in alive if o.candidate.is_float_baseline), key=_p50)
        baseline.score = self._scored(baseline.candidate)
        if baseline.score is None:
            alive = _floats(alive)
        ranked = self._ranked(alive)
        for outcome in ranked:
            faults = self._faults(outcome, baseline.score)
            if not faults:
                self._settle(outcome, ranked, baseline.score)
                self._qualify(outcome, outcomes)
                return Choice(outcome, baseline, outcomes)
        best = self._least_bad(ranked, baseline)
        best.status = "chosen"
        missed = self._faults(best, baseline.score)
        best.why = "nothing keeps every limit; this comes closest"
        return Choice(best, baseline, outcomes, missed)

    def _ranked(self, alive: Sequence[Outcome]) -> list[Outcome]:
        """Fastest first; where small is preferred, of each group of about the same size."""
        if not self._by_size:
            return sorted(alive, key=_p50)
        groups: list[list[Outcome]] = []
        for outcome in sorted(alive, key=_size):
            if not groups or _size(outcome) > _ABOUT * _size(groups[-1][0]):
                groups.append([])
            groups[-1].append(outcome)
        return [outcome for group in groups for outcome in sorted(group, key=_p50)]

    def _faults(self, outcome: Outcome, before: Score | None) -> list[str]:
        """Why a candidate cannot be taken; sets its status when there is a reason."""
        faults = self._cheap_faults(outcome)
        if not faults and not self._try_score(outcome):
            return [outcome.why]
        if not faults:
            accepted, why = self._accepted(outcome, before)
            if not accepted:
                faults.append(why)
                outcome.status, outcome.why = "inaccurate", why
        elif outcome.status != "chosen":
            outcome.status, outcome.why = "over_limit", "; ".join(faults)
        return faults

    def _accepted(self, outcome: Outcome, before: Score | None) -> tuple[bool, str]:
        if outcome.candidate.is_float_baseline:
            return True, ""
        assert before is not None
        assert outcome.score is not None
        return self.judge.accepts(before, outcome.score)

    def _cheap_faults(self, outcome: Outcome) -> list[str]:
        """Limits that need no run over the evaluation samples."""
        allowed = self.limits.max_latency_ms
        if allowed is not None and (outcome.measured.p50_ms or 0.0) <= allowed:
            self._earn_p99(outcome.candidate.id)
        found = (size_fault(outcome, self.limits), latency_fault(outcome, self.limits))
        return [fault for fault in found if fault]

    def _try_score(self, outcome: Outcome) -> bool:
        """Score one; False where there is none, and the status says why."""
        try:
            outcome.score = self._scored(outcome.candidate)
        except BackendError as error:
            outcome.status, outcome.why = "failed", str(error)
            return False
        if outcome.score is None and not outcome.candidate.is_float_baseline:
            outcome.status, outcome.why = "not_evaluated", _ENDED
            return False
        return True

    def _scored(self, candidate: Candidate) -> Score | None:
        key = candidate.answers_id
        if key not in self._scores and (score := self._score(candidate)) is not None:
            self._scores[key] = score
        return self._scores.get(key)

    def _settle(self, chosen: Outcome, ranked: Sequence[Outcome], before: Score | None) -> None:
        chosen.status = "chosen"
        chosen.why = f"the {'smallest' if self._by_size else 'fastest'} that keeps every limit"
        if chosen.measured.p50_ms is None:
            chosen.why = "the first in order of preference that keeps every limit; not timed here"
        for other in ranked:
            if other.status:
                continue
            if self._by_size and (
                _size(other) > _ABOUT * _size(chosen) or _p50(other) < _p50(chosen)
            ):
                other.status = "larger"
                other.why = f"{_size(other) / _size(chosen):.2f} times the chosen one's size"
                continue
            other.score = other.score or self._scores.get(other.candidate.answers_id)
            if other.score is not None and not (found := self._accepted(other, before))[0]:
                other.status, other.why = "inaccurate", found[1]
                continue
            untimed = other.measured.p50_ms is None
            other.status = "not_measured" if untimed else "slower"
            other.status = "dropped" if other.measured.dropped else other.status
            other.why = other.measured.dropped or _behind(other, chosen)

    def _qualify(self, chosen: Outcome, outcomes: Sequence[Outcome]) -> None:
        if chosen.score is None:
            chosen.why = "the float model as it is: the run ended before anything was evaluated"
        elif any(other.why == _ENDED for other in outcomes):
            chosen.why += ", of those evaluated before the run ended"

    def _least_bad(self, ranked: Sequence[Outcome], baseline: Outcome) -> Outcome:
        """With limits nobody keeps: accurate before inaccurate, then fewest faults, then speed."""
        best, least = baseline, (2, len(ranked), 0)
        for place, outcome in enumerate(ranked):
            if not self._try_score(outcome):
                continue
            accurate = self._accepted(outcome, baseline.score)[0]
            key = (0 if accurate else 1, len(self._cheap_faults(outcome)), place)
            if key < least:
                best, least = outcome, key
        return best


def _timed(alive: list[Outcome]) -> list[Outcome]:
    """Those that were timed, if a float baseline was: the others came too late."""
    if not any(o.candidate.is_float_baseline and o.measured.turns_ms for o in alive):
        return alive
    for outcome in alive:
        if not outcome.measured.turns_ms:
            why = outcome.measured.untimed or "the run ended before it was timed"
            outcome.status, outcome.why = "not_measured", why
    return [o for o in alive if not o.status]


def _floats(alive: list[Outcome]) -> list[Outcome]:
    """The baselines, where there was no time to compare anything with them."""
    for outcome in alive:
        if not outcome.candidate.is_float_baseline:
            outcome.status, outcome.why = "not_evaluated", _ENDED
    return [o for o in alive if not o.status]


def size_mb(outcome: Outcome) -> float:
    """Size of the artifact in 10^6 bytes."""
    return outcome.candidate.artifact.size_bytes / MEGABYTE


def size_fault(outcome: Outcome, limits: Limits) -> str:
    """By how much the artifact is too large; "" where it is not."""
    size, most = size_mb(outcome), limits.max_size_mb
    if most is None or size <= most:
        return ""
    return f"size is {size:.3f} MB, {size - most:.3f} over max_size_mb {most:g}"


def shown_latency(outcome: Outcome) -> tuple[float | None, str]:
    """The p99 in ms where enough calls were made, else the p50, and which of them it is."""
    p99 = outcome.measured.p99_ms
    if p99 is not None:
        return p99, "p99"
    return outcome.measured.p50_ms, "p50 (too few calls for p99)"


def latency_fault(outcome: Outcome, limits: Limits) -> str:
    """By how much the candidate is too slow; "" where it is not, or was not timed."""
    (shown, label), allowed = shown_latency(outcome), limits.max_latency_ms
    if allowed is None or shown is None or shown <= allowed:
        return ""
    return f"{label} is {shown:.3f} ms, {shown - allowed:.3f} over max_latency_ms {allowed:g}"


def _p50(outcome: Outcome) -> float:
    return outcome.measured.p50_ms or 0.0


def _size(outcome: Outcome) -> int:
    return max(1, outcome.candidate.artifact.size_bytes)


def _behind(other: Outcome, chosen: Outcome) -> str:
    if other.measured.p50_ms is None or not chosen.measured.p50_ms:
        return "later in the order of preference"
    return f"{other.measured.p50_ms / chosen.measured.p50_ms:.2f} times the chosen one's latency"
