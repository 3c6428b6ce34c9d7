"""`--eval module:function`, and what a limit on the drop means."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from edgebm.data.batch import Feeds
from edgebm.data.callables import call_user, declared, finite_number, load_callable
from edgebm.data.metrics import Metric
from edgebm.errors import DataError


@dataclass(frozen=True, slots=True)
class Evaluation:
    """`--eval module:function`: the user's own program judges a model that it can call.

    `function(run)` gets `run: dict -> dict` and returns a number or a dict of numbers, whose
    first one counts.
    """

    name: str
    unit: str
    higher_is_better: bool
    function: Callable[..., Any]

    def compute(self, run: Callable[[Feeds], Feeds]) -> tuple[float, dict[str, float]]:
        """The number that counts, and all of them by name.

        Raises:
            DataError: the function raised, or returned something else.
        """
        result = call_user(self.name, self.function, run)
        if not isinstance(result, Mapping):
            value = finite_number(result, self.name)
            return value, {self.name: value}
        if not result:
            raise DataError(f"{self.name} returned an empty dict", hint="return at least a number")
        values = {
            str(key): finite_number(value, f"{self.name}['{key}']")
            for key, value in result.items()
        }
        return next(iter(values.values())), values

    def drop(self, before: float, after: float) -> float:
        """How much worse `after` is; negative when it is better."""
        return before - after if self.higher_is_better else after - before


def resolve_evaluation(spec: str | Callable[..., Any]) -> Evaluation:
    """The user's evaluation program, `f(run) -> float | dict`; declared like a metric."""
    function = load_callable(spec) if isinstance(spec, str) else spec
    name, unit, higher = declared(spec, function)
    return Evaluation(name, unit, higher, function)


def max_drop_warning(metric: Metric | Evaluation, max_drop: float) -> str:
    """A sentence when `max_drop` looks like a fraction where points of 100 are meant, or ""."""
    if metric.unit != "points" or not 0 < max_drop <= 0.01:
        return ""
    return (
        f"max_drop {max_drop:g} is in points of 100: it allows {metric.name} to fall by "
        f"{max_drop:g} of 100, not by {max_drop * 100:g} %"
    )
