"""How many units of each group go, and which."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgebm.pruning.cost import Costs
from edgebm.pruning.group import Group

Scores = Mapping[str, NDArray[np.float64]]
Removed = dict[str, NDArray[np.int64]]
# Where the multiply-accumulates of layers fall by some share, their time must fall by this part
# of it: else their kernels do not see the units that are gone.
_PAYS = 0.2
# Times are compared over such a part of a group's width: over one step of a wide group they differ
# by less than two measurements of the same do.
_STRETCH = 1 / 8


@dataclass(frozen=True, slots=True)
class Budget:
    """How much is to be removed.

    `sparsity` is the fraction of the whole cost that goes, multiply-accumulates or (`by_time`)
    milliseconds of the layers that can be narrowed. Widths end on multiples of `round_to`, or of
    its half, quarter, ... where a group is narrower than twice that.
    """

    sparsity: float
    round_to: int = 1
    by_time: bool = False


@dataclass(frozen=True, slots=True)
class Allocation:
    """The units to remove by group, and the groups whose cutting pays no time, with the reason."""

    removed: Removed
    unpaid: tuple[tuple[str, str], ...] = ()


def width_step(units: int, round_to: int) -> int:
    """The multiple that the width of a group of `units` ends on."""
    step = round_to
    while step > 1 and units < 2 * step:
        step //= 2
    return max(1, step)


def step_of(group: Group, round_to: int) -> int:
    """How many units of a group go at once: heads are as wide as many positions."""
    each = math.gcd(*(place.index.shape[1] for place in (*group.reads, *group.values)))
    return width_step(group.units, round_to // math.gcd(round_to, each))


def uniform(groups: Sequence[Group], scores: Scores, budget: Budget) -> Allocation:
    """The least important units of each group, the fraction `sparsity` of them."""
    removed = {}
    for group in groups:
        step = step_of(group, budget.round_to)
        kept = max(step, step * round((1 - budget.sparsity) * group.units / step))
        if kept < group.units:
            removed[group.name] = _least(scores[group.name], group.units - kept)
    return Allocation(removed)


def cheapest(groups: Sequence[Group], scores: Scores, costs: Costs, budget: Budget) -> Allocation:
    """The units that matter least for what they cost, until the budget is reached.

    Step by step the units go whose scores sum to the least for each saved part of the cost; what
    a step saves is computed anew as coupled layers get narrower. With times, stretches of an
    eighth of a group that save no time on the target are not cut. A group keeps one step of its
    width at least. Where all that pays is gone before the budget is reached, it ends there.

    Args:
        groups: what may be cut.
        scores: importance [units] by group; comparable between groups.
        costs: of the model.
        budget: how much is to go.
    """
    lanes = [_Lane(group, scores[group.name], budget.round_to) for group in groups]
    gone = {lane.name: 0 for lane in lanes}
    unpaid: dict[str, str] = {}
    stretches: dict[str, _Stretch] = {}
    left = costs.ms({}) if budget.by_time else costs.macs({})
    goal = (1 - budget.sparsity) * left
    while left > goal:
        best, least, gain = None, math.inf, 0.0
        for lane in lanes:
            if lane.name in unpaid or not lane.has_more(gone[lane.name]):
                continue
            stretch = stretches.get(lane.name)
            if costs.is_timed and (stretch is None or gone[lane.name] >= stretch.end):
                stretch = stretches[lane.name] = _Stretch(costs, lane, gone)
                if reason := stretch.why_unpaid():
                    unpaid[lane.name] = reason
                    continue
            after = {**gone, lane.name: lane.next(gone[lane.name])}
            saved = costs.macs(gone, lane.name) - costs.macs(after, lane.name)
            if budget.by_time and stretch is not None:
                saved = stretch.saved_ms(after[lane.name] - gone[lane.name])
            if saved > 0 and (price := lane.loss(gone[lane.name]) / saved) < least:
                best, least, gain = lane, price, saved
        if best is None:
            break
        gone[best.name] = best.next(gone[best.name])
        left = left - gain if budget.by_time else costs.macs(gone)
    removed = {lane.name: lane.order[: gone[lane.name]] for lane in lanes if gone[lane.name]}
    return Allocation(
        {label: np.sort(units) for label, units in removed.items()}, tuple(unpaid.items())
    )


class _Lane:
    """One group, its units from the least important on."""

    def __init__(self, group: Group, score: NDArray[Any], round_to: int) -> None:
        self.name, self._units = group.name, group.units
        self._step = step_of(group, round_to)
        self.order = np.argsort(score, kind="stable")
        self._sums = np.concatenate([[0.0], np.cumsum(score[self.order])])

    def stretch_end(self, gone: int) -> int:
        """How many are gone at the end of the stretch that the next step belongs to."""
        end = self.next(gone)
        while end - gone < _STRETCH * self._units and self.has_more(end):
            end = self.next(end)
        return end

    def next(self, gone: int) -> int:
        """How many are gone after the next step, which ends on a multiple."""
        kept = self._units - gone
        return self._units - (kept - 1) // self._step * self._step

    def has_more(self, gone: int) -> bool:
        return self._units - gone > self._step

    def loss(self, gone: int) -> float:
        """What the units of the next step are worth."""
        return float(self._sums[self.next(gone)] - self._sums[gone])


def _least(score: NDArray[Any], count: int) -> NDArray[np.int64]:
    return np.sort(np.argsort(score, kind="stable")[:count])


class _Stretch:
    """Some steps of one group in a row, and what all of them save on the target."""

    def __init__(self, costs: Costs, lane: _Lane, gone: Mapping[str, int]) -> None:
        self.begin, self.end = gone[lane.name], lane.stretch_end(gone[lane.name])
        after = {**gone, lane.name: self.end}
        self._macs = costs.macs(gone, lane.name), costs.macs(after, lane.name)
        self._ms = costs.ms(gone, lane.name), costs.ms(after, lane.name)

    def why_unpaid(self) -> str:
        """Why cutting it does not pay, in figures; empty where it does."""
        (macs, macs_left), (ms, ms_left) = self._macs, self._ms
        if not ms or not macs or (1 - ms_left / ms) >= _PAYS * (1 - macs_left / macs):
            return ""
        return (
            f"{100 * (1 - macs_left / macs):.0f} % less work in its layers takes {ms_left:.3g} ms "
            f"on the target, where it takes {ms:.3g} now"
        )

    def saved_ms(self, units: int) -> float:
        """The part of `units` of what the whole stretch saves, in milliseconds."""
        return (self._ms[0] - self._ms[1]) * units / (self.end - self.begin)
