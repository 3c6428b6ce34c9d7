"""Gates of `edgebm compress`: figures that the chosen candidate must reach, or no bundle."""

from __future__ import annotations

import math
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from numpy.typing import NDArray

from edgebm.data.label_checks import label_faults
from edgebm.data.metrics import Metric, resolve_metric
from edgebm.errors import DataError, UsageError
from edgebm.spec import TensorSpec

_FORM = re.compile(r"\s*(?P<name>\S+?)\s*(?P<sign>>=|<=)\s*(?P<limit>\S+)\s*")
# 0.55 of 100 points is a little more than 55 in binary.
_ROUNDING = 1e-9
_HINT = "a gate is NAME>=VALUE, such as sensitivity>=0.95"


@dataclass(frozen=True, slots=True)
class QualityGate:
    """`metric` must reach `limit`, which is in its unit; `text` is what the user wrote."""

    text: str
    metric: Metric
    limit: float

    def passed(self, value: float) -> bool:
        """Whether `value`, in the metric's unit, reaches the limit."""
        return self.metric.drop(self.limit, value) <= _ROUNDING


@dataclass(frozen=True, slots=True)
class GateResult:
    """A gate, and the figure of the chosen candidate on the evaluation samples.

    `samples` are those that the figure counts, None where all do; `low` and `high` bound the
    95 % interval of a share of them (Wilson), in points of 100.
    """

    gate: str
    value: float
    limit: float
    unit: str
    passed: bool
    sentence: str
    samples: int | None = None
    low: float | None = None
    high: float | None = None


def parse_gates(texts: Sequence[str]) -> tuple[QualityGate, ...]:
    """Gates from `NAME>=VALUE`, or `NAME<=VALUE` where less is better.

    A metric in points of 100 may be written as a share: `top1>=0.95` is `top1>=95`.

    Raises:
        UsageError: lists every fault of every text.
    """
    gates, faults = [], []
    for text in texts:
        try:
            gates.append(_parsed(text))
        except DataError as fault:  # noqa: PERF203 - all faults at once
            faults.append(f"gate '{text}': {fault}" + (f" ({fault.hint})" if fault.hint else ""))
    if faults:
        raise UsageError("; ".join(faults), hint=_HINT, details={"faults": faults})
    return tuple(gates)


def _parsed(text: str) -> QualityGate:
    found = _FORM.fullmatch(text)
    if found is None:
        raise DataError("it does not read as NAME>=VALUE")
    metric = resolve_metric(found["name"])
    sign = ">=" if metric.higher_is_better else "<="
    try:
        limit = float(found["limit"])
    except ValueError:
        raise DataError(f"'{found['limit']}' is no number") from None
    if found["sign"] != sign:
        better = "more" if metric.higher_is_better else "less"
        raise DataError(f"of {metric.name} {better} is better: {metric.name}{sign}{limit:g}")
    if metric.unit == "points":
        if not 0 < limit <= 100:
            raise DataError(f"{metric.name} is a share up to 1, or in points up to 100")
        limit = 100 * limit if limit <= 1 else limit
    if not math.isfinite(limit):
        raise DataError("the value must be finite")
    return QualityGate(text.strip(), metric, limit)


def gate_faults(
    gates: Sequence[QualityGate], outputs: Sequence[TensorSpec], labels: NDArray[Any] | None
) -> Iterator[str]:
    """Why gates cannot be checked with these labels; None: there are none, or a program judges."""
    for gate in gates:
        if labels is None:
            yield (
                f"gate '{gate.text}': it needs labelled evaluation samples; give -e a file of "
                "samples with an array called labels"
            )
            continue
        for fault in label_faults(gate.metric, outputs, labels):
            yield f"gate '{gate.text}': {fault}"
