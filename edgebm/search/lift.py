"""Which layers to lift back to float, so that the others can stay on integers.

Knows no runtime: what a set of layers costs is measured beforehand, how far it brings the outputs
is predicted by simulation, and whether it is enough is for `attempt` to say, which builds and
scores it.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from collections.abc import Set as AbstractSet
from dataclasses import dataclass

Layers = frozenset[str]
_WORTH = 0.9  # of what integers save; a set that costs more is no better than float
_GAIN_DB = 0.3  # by which a larger set must be predicted to be better, to be tried


@dataclass(frozen=True, slots=True)
class Harm:
    """One layer: the noise power it makes alone, relative to the signal, and what it costs.

    `cost_us` is the measured time that its integers save; more than 0.
    """

    name: str
    noise: float
    cost_us: float


@dataclass(slots=True)
class Lifting:
    """Looks for the cheapest set of layers whose lifting is enough.

    Layers are ordered by noise for the time that they save. The shortest beginning of that
    order that is enough is found by doubling and halving; then the costliest layers are put back
    on integers, one by one, as long as the prediction is better than that of every set refused.

    Args:
        layers: those that can be lifted.
        predict: SQNR of the outputs in dB with a set of layers in float, by simulation.
        attempt: whether the set is enough, from building and scoring it.
        tries: how many sets may be attempted.
    """

    layers: Sequence[Harm]
    predict: Callable[[Layers], float]
    attempt: Callable[[Layers], bool]
    tries: int
    _refused_db: float = -math.inf

    def find(self) -> Layers | None:
        """The cheapest set found that is enough; None where none was."""
        order = [harm.name for harm in sorted(self.layers, key=_worth, reverse=True)]
        found = self._shortest(order)
        return None if found is None else self._thinned(found)

    def _shortest(self, order: Sequence[str]) -> Layers | None:
        most = self._affordable(order)
        refused, accepted, size = 0, 0, 1
        best = self.predict(frozenset())
        while not accepted and refused < most and self.tries:
            size = min(size, most)
            predicted = self.predict(frozenset(order[:size]))
            if predicted < best + _GAIN_DB and size < most:
                refused, size = size, 2 * size
                continue
            best = max(best, predicted)
            if self._try(order[:size]):
                accepted = size
            else:
                refused, size = size, 2 * size
        while accepted - refused > 1 and self.tries:
            size = (refused + accepted) // 2
            if self._try(order[:size]):
                accepted = size
            else:
                refused = size
        return frozenset(order[:accepted]) if accepted else None

    def _affordable(self, order: Sequence[str]) -> int:
        """How long a beginning of `order` leaves something of the time that integers save."""
        cost = {harm.name: harm.cost_us for harm in self.layers}
        limit, spent = _WORTH * sum(cost.values()), 0.0
        for count, name in enumerate(order):
            spent += cost[name]
            if spent > limit:
                return count
        return len(order)

    def _thinned(self, floats: Layers) -> Layers:
        """`floats` without the layers that need not be among them, the costliest first."""
        cost = {harm.name: harm.cost_us for harm in self.layers}
        for name in sorted(floats, key=lambda each: (-cost[each], each)):
            if len(floats) == 1 or not self.tries:
                break
            fewer = floats - {name}
            if self.predict(fewer) > self._refused_db and self._try(fewer):
                floats = fewer
        return floats

    def _try(self, floats: Sequence[str] | AbstractSet[str]) -> bool:
        self.tries -= 1
        layers = frozenset(floats)
        enough = self.attempt(layers)
        if not enough:
            self._refused_db = max(self._refused_db, self.predict(layers))
        return enough


def harms(
    noise: Mapping[str, float], float_us: Mapping[str, float], int8_us: Mapping[str, float]
) -> list[Harm]:
    """What each layer of `noise` costs, from measured times by layer.

    A layer that the runtime did not time for itself, or that integers do not make faster, counts
    with a hundredth of the time of all.
    """
    least = max(sum(float_us.values()) / 100, 1e-3)
    return [
        Harm(name, power, max(float_us.get(name, 0.0) - int8_us.get(name, 0.0), least))
        for name, power in noise.items()
    ]


def _worth(harm: Harm) -> tuple[float, str]:
    return harm.noise / harm.cost_us, harm.name
