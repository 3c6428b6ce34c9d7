"""How good a candidate is, and whether that is good enough."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from edgebm.data.agreement import (
    FLOOR,
    STRICT_FLOOR,
    Agreement,
    Floor,
    agreement,
    meets_floor,
)
from edgebm.data.batch import Feeds
from edgebm.data.classes import Assessment
from edgebm.data.evaluation import Evaluation
from edgebm.data.metrics import Metric
from edgebm.data.over_time import View
from edgebm.data.samples import Samples
from edgebm.data.significance import mcnemar

Run = Callable[[Feeds], Feeds]
Tick = Callable[[int, int], None]
SIGNIFICANT = 0.05  # a difference that chance makes less often is none of chance


@dataclass(frozen=True, slots=True)
class Demand:
    """What is asked of accuracy where the user set no limit.

    Without labels, and for metrics that are not in points, `floor` decides. Metrics in points may
    drop by `drop_points`. With `no_loss` the floor holds beside a metric too, whatever the limit,
    and the model must not be worse than float by more than chance explains (McNemar's test at
    5 %), where a metric judges single answers: a few hundred labels do not see what the outputs
    show.
    """

    floor: Floor
    drop_points: float
    no_loss: bool


DEFAULT = Demand(FLOOR, drop_points=1.0, no_loss=False)
STRICT = Demand(STRICT_FLOOR, drop_points=0.3, no_loss=True)
DEMANDS = {"default": DEFAULT, "strict": STRICT}
_AGREEMENT_SAMPLES = 64
_PLAIN = View(())


@dataclass(frozen=True, slots=True)
class Score:
    """`value` is in the judge's unit, None where only agreement is known.

    `assessment` is what a built-in metric knows beside its value: classes, verdicts, luck.
    """

    value: float | None
    agreement: Agreement
    assessment: Assessment | None = field(default=None, compare=False)

    @property
    def verdicts(self) -> NDArray[np.int8] | None:
        """1 for a right answer, 0 for a wrong one, -1 for neither, by sample; see `mcnemar`."""
        return None if self.assessment is None else self.assessment.verdicts


class Judge(Protocol):
    """Scores a candidate by running it, and compares the score with the float model's."""

    name: str
    unit: str
    higher_is_better: bool
    floor: str
    is_relative: bool  # the value itself already compares with the float model

    def score(self, run: Run, tick: Tick) -> Score: ...

    def accepts(self, before: Score, after: Score) -> tuple[bool, str]: ...


class _Reference:
    """The float model's outputs on the samples that agreement is measured on."""

    def __init__(self, run: Run, samples: Samples, view: View, limit: int) -> None:
        self._run, self.samples, self._view = run, samples, view
        self.count = min(limit, len(samples))

    def agreement(self, run: Run, tick: Tick) -> Agreement:
        """Both models side by side: no output is kept, whatever its size."""
        compared = self._view.compared
        want = (compared(self._run(feeds)) for feeds in self.samples.feeds(0, self.count))
        have = ticking(run, self.samples.feeds(0, self.count), self.count, tick)
        return agreement(want, map(compared, have), over_time=self._view.over_time)


class AgreementJudge:
    """Without labels: the worst output's SQNR against the float model, in dB."""

    name, unit, higher_is_better, is_relative = "sqnr", "dB", True, True

    def __init__(
        self, reference: Run, samples: Samples, demand: Demand = DEFAULT, view: View = _PLAIN
    ) -> None:
        self._reference = _Reference(reference, samples, view, len(samples))
        self._demand = demand
        self.floor = f"without labels {demand.floor}"

    def score(self, run: Run, tick: Tick) -> Score:
        found = self._reference.agreement(run, tick)
        return Score(found.sqnr_db, found)

    def accepts(self, before: Score, after: Score) -> tuple[bool, str]:
        return meets_floor(after.agreement, self._demand.floor)


class MetricJudge:
    """With labels: a metric may drop by `max_drop` of its unit."""

    is_relative = False

    def __init__(
        self,
        metric: Metric,
        reference: Run,
        samples: Samples,
        max_drop: float | None,
        demand: Demand = DEFAULT,
        view: View = _PLAIN,
    ) -> None:
        self.name, self.unit = metric.name, metric.unit
        self.higher_is_better = metric.higher_is_better
        self.metric, self._samples, self._view = metric, samples, view
        self._reference = _Reference(reference, samples, view, _AGREEMENT_SAMPLES)
        self._labels: NDArray[Any] | None = samples.labels
        self._demand = demand
        self.max_drop, self.floor = _allowed(metric, max_drop, demand)

    def score(self, run: Run, tick: Tick) -> Score:
        outputs = ticking(run, self._samples.feeds(), len(self._samples), tick)
        found = self.metric.assess(map(self._view.measured, outputs), self._labels)
        agreed = self._reference.agreement(run, lambda done, total: None)
        return Score(found.value, agreed, found)

    def accepts(self, before: Score, after: Score) -> tuple[bool, str]:
        kept, why = _within(self.metric, self.max_drop, before, after, self._demand)
        if not (kept and self._demand.no_loss):
            return kept, why
        kept, floor = meets_floor(after.agreement, self._demand.floor)
        return _explained_by_chance(before, after, why) if kept else (False, floor)


class EvaluationJudge:
    """The user's own program judges: it gets `run` and returns a number."""

    is_relative = False

    def __init__(
        self,
        evaluation: Evaluation,
        reference: Run,
        samples: Samples,
        max_drop: float | None,
        demand: Demand = DEFAULT,
        view: View = _PLAIN,
    ) -> None:
        self.name, self.unit = evaluation.name, evaluation.unit
        self.higher_is_better = evaluation.higher_is_better
        self.evaluation = evaluation
        self._reference = _Reference(reference, samples, view, _AGREEMENT_SAMPLES)
        self._demand = demand
        self.max_drop, self.floor = _allowed(evaluation, max_drop, demand)

    def score(self, run: Run, tick: Tick) -> Score:
        calls = 0

        def counted(feeds: Feeds) -> Feeds:
            nonlocal calls
            calls += 1
            tick(calls, 0)  # only the program knows how many there will be
            return run(feeds)

        value, _ = self.evaluation.compute(counted)
        tick(1, 1)
        return Score(value, self._reference.agreement(run, lambda done, total: None))

    def accepts(self, before: Score, after: Score) -> tuple[bool, str]:
        kept, why = _within(self.evaluation, self.max_drop, before, after, self._demand)
        if not (kept and self._demand.no_loss):
            return kept, why
        kept, floor = meets_floor(after.agreement, self._demand.floor)
        return kept, why if kept else floor


def _allowed(
    judge: Metric | Evaluation, max_drop: float | None, demand: Demand
) -> tuple[float | None, str]:
    """The drop allowed and a sentence about it; None where the agreement floor decides."""
    also = f"; {demand.floor}" if demand.no_loss else ""
    if max_drop is not None:
        unit = f" {judge.unit}" if judge.unit else ""
        name = judge.name.rpartition(":")[2]  # of a program, the function alone
        return max_drop, f"{name} may get worse by {max_drop:g}{unit}{also}"
    if judge.unit == "points":
        allowed = demand.drop_points
        return allowed, f"{judge.name} may drop by {allowed:g} points{also}"
    return None, f"no --max-drop is given for {judge.name}: {demand.floor}"


def _within(
    judge: Metric | Evaluation, max_drop: float | None, before: Score, after: Score, demand: Demand
) -> tuple[bool, str]:
    if max_drop is None or before.value is None or after.value is None:
        return meets_floor(after.agreement, demand.floor)
    drop = judge.drop(before.value, after.value)
    unit = f" {judge.unit}" if judge.unit else ""
    moved = f"{judge.name} {'drops' if drop >= 0 else 'gains'} {abs(drop):.3g}{unit}"
    over = f" ({drop - max_drop:.3g} too many)" if drop > max_drop else ""
    return drop <= max_drop, f"{moved}; {max_drop:g}{unit} are allowed{over}"


def _explained_by_chance(before: Score, after: Score, why: str) -> tuple[bool, str]:
    """Whether what was lost is not more than chance explains, where that can be told."""
    if before.verdicts is None or after.verdicts is None:
        return True, why
    found = mcnemar(before.verdicts, after.verdicts)
    if found.lost <= found.won or found.p_value > SIGNIFICANT:
        return True, why
    return False, (
        f"{found.lost} answers are lost and {found.won} won, which chance does not explain "
        f"(McNemar's test, p = {found.p_value:.2g})"
    )


def ticking(run: Run, feeds: Iterable[Feeds], total: int, tick: Tick) -> Iterator[Feeds]:
    for done, sample in enumerate(feeds, start=1):
        yield run(sample)
        tick(done, total)
