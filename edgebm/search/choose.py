"""Take the fastest candidate that keeps every limit; say of each other one why not."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

from edgebm.errors import BackendError
from edgebm.search.candidates import Candidate
from edgebm.search.judge import Judge, Score
from edgebm.search.race import Measurement

MEGABYTE = 1e6
_ABOUT = 1.1  # times a size are as good as that size
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
        score: Callable[[Candidate], Score],
        earn_p99: Callable[[str], None],
        prefer: str = "latency",
    ) -> None:
        """`prefer` is "latency" or "size"."""
        self.judge, self.limits = judge, limits
        self._by_size = prefer == "size"
        self._score, self._earn_p99 = score, earn_p99
        self._scores: dict[str, Score] = {}

    def choose(
        self, candidates: Sequence[Candidate], measured: Mapping[str, Measurement]
    ) -> Choice:
        """Choose among `candidates`.

        Where nothing was timed their order is the preference. The float baseline, the fastest
        one, is always scored.
        """
        outcomes = [Outcome(c, measured[c.id]) for c in candidates]
        for outcome in outcomes:
            if outcome.measured.failed:
                outcome.status, outcome.why = "failed", outcome.measured.failed
            elif outcome.candidate.artifact.promise:
                outcome.status, outcome.why = "needs_samples", _PROMISE
        alive = [o for o in outcomes if not o.status]
        ranked = self._ranked(alive)
        baseline = min((o for o in alive if o.candidate.is_float_baseline), key=_p50)
        baseline.score = self._scored(baseline.candidate)
        for outcome in ranked:
            faults = self._faults(outcome, baseline.score)
            if not faults:
                self._settle(outcome, ranked)
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

    def _faults(self, outcome: Outcome, before: Score) -> list[str]:
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

    def _accepted(self, outcome: Outcome, before: Score) -> tuple[bool, str]:
        if outcome.candidate.is_float_baseline:
            return True, ""
        assert outcome.score is not None
        return self.judge.accepts(before, outcome.score)

    def _cheap_faults(self, outcome: Outcome) -> list[str]:
        """Limits that need no run over the evaluation samples."""
        faults = []
        size, most = outcome.candidate.artifact.size_bytes / MEGABYTE, self.limits.max_size_mb
        if most is not None and size > most:
            faults.append(f"size is {size:.3f} MB, {size - most:.3f} over max_size_mb {most:g}")
        allowed = self.limits.max_latency_ms
        if allowed is not None and (outcome.measured.p50_ms or 0.0) <= allowed:
            self._earn_p99(outcome.candidate.id)
        p50, p99 = outcome.measured.p50_ms, outcome.measured.p99_ms
        shown, label = (p99, "p99") if p99 is not None else (p50, "p50 (too few calls for p99)")
        if allowed is not None and shown is not None and shown > allowed:
            faults.append(
                f"{label} is {shown:.3f} ms, {shown - allowed:.3f} over max_latency_ms {allowed:g}"
            )
        return faults

    def _try_score(self, outcome: Outcome) -> bool:
        """Score one; False where its runtime fails on the samples, which is then its status."""
        try:
            outcome.score = self._scored(outcome.candidate)
        except BackendError as error:
            outcome.status, outcome.why = "failed", str(error)
        return outcome.status != "failed"

    def _scored(self, candidate: Candidate) -> Score:
        if candidate.answers_id not in self._scores:
            self._scores[candidate.answers_id] = self._score(candidate)
        return self._scores[candidate.answers_id]

    def _settle(self, chosen: Outcome, ranked: Sequence[Outcome]) -> None:
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
            untimed = other.measured.p50_ms is None
            other.status = "not_measured" if untimed else "slower"
            other.status = "dropped" if other.measured.dropped else other.status
            other.why = other.measured.dropped or _behind(other, chosen)

    def _least_bad(self, ranked: Sequence[Outcome], baseline: Outcome) -> Outcome:
        """With limits nobody keeps: accurate before inaccurate, then fewest faults, then speed."""
        assert baseline.score is not None
        best, least = baseline, (2, len(ranked), 0)
        for place, outcome in enumerate(ranked):
            if not self._try_score(outcome):
                continue
            accurate = self._accepted(outcome, baseline.score)[0]
            key = (0 if accurate else 1, len(self._cheap_faults(outcome)), place)
            if key < least:
                best, least = outcome, key
        return best


def _p50(outcome: Outcome) -> float:
    return outcome.measured.p50_ms or 0.0


def _size(outcome: Outcome) -> int:
    return max(1, outcome.candidate.artifact.size_bytes)


def _behind(other: Outcome, chosen: Outcome) -> str:
    if other.measured.p50_ms is None or not chosen.measured.p50_ms:
        return "later in the order of preference"
    return f"{other.measured.p50_ms / chosen.measured.p50_ms:.2f} times the chosen one's latency"
