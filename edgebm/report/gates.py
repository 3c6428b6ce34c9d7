"""Limits on how much worse a second bundle may be than a first one."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from edgebm.errors import UsageError
from edgebm.report.classes import class_rows
from edgebm.report.rows import Report, metric_text, ms, size, timed_on

# Of a difference of two printed figures the last bits say nothing: 98.2 - 97.9 is above 0.3.
_ROUNDING = 1e-9


@dataclass(frozen=True, slots=True)
class GateLimits:
    """What the second bundle may lose against the first; None where that is no matter.

    `max_drop` is in the metric's printed unit and `max_worst_class_drop` in that of the classes.
    `max_slower` is a ratio of p50 latencies and `max_larger` one of sizes: 1.1 allows a tenth.
    """

    max_drop: float | None = None
    max_slower: float | None = None
    max_larger: float | None = None
    max_worst_class_drop: float | None = None

    @property
    def given(self) -> dict[str, float]:
        """The limits that were set, by name."""
        return {key: value for key, value in asdict(self).items() if value is not None}


@dataclass(frozen=True, slots=True)
class Gate:
    """One limit, the figure it was held against, and a sentence with both."""

    name: str
    value: float
    limit: float
    passed: bool
    sentence: str


class _CannotTell(Exception):
    """The two reports do not hold what a limit needs; args are the reason and what to do."""


def check_limits(limits: GateLimits) -> None:
    """Refuse limits that make no sense, all at once.

    Raises:
        UsageError: a drop below 0, a ratio of 0 or less, or what is no number.
    """
    faults = []
    for key, value in limits.given.items():
        is_drop = key.endswith("drop")
        if not (math.isfinite(value) and (value >= 0 if is_drop else value > 0)):
            words = "0 or more" if is_drop else "a ratio above 0, such as 1.1"
            faults.append(f"{option(key)} must be {words}, not {value:g}")
    if faults:
        raise UsageError("; ".join(faults), hint="see 'edgebm report --help'")


def check_gates(first: Report, second: Report, limits: GateLimits) -> list[Gate]:
    """Hold `second` against `first`, one gate for each limit that was set.

    Raises:
        UsageError: the reports do not hold what a limit needs, or cannot be compared in it; says
            so of every such limit.
    """
    gates, faults, hints = [], [], []
    for key, limit in limits.given.items():
        try:
            value, sentence = _GATES[key](first, second)
        except _CannotTell as reason:
            what, hint = reason.args
            faults.append(f"{option(key)} cannot be checked: {what}")
            hints.append(hint)
            continue
        passed = value <= limit + _ROUNDING
        unit = {"max_drop": first["metric"]["unit"], "max_worst_class_drop": ""}.get(key, "times")
        allowed = f"up to {limit:g} {unit}".rstrip()
        sentence += f"; {allowed} is allowed ({option(key)})"
        gates.append(Gate(key, value, limit, passed, sentence))
    if faults:
        raise UsageError(
            "; ".join(faults),
            hint="; ".join(dict.fromkeys(hints)),
            details={"faults": faults},
        )
    return gates


def option(key: str) -> str:
    """`max_drop` as it is typed."""
    return f"--{key.replace('_', '-')}"


def _drop(first: Report, second: Report) -> tuple[float, str]:
    metric, unit = first["metric"], str(first["metric"]["unit"])
    _same_metric(first, second)
    _same_samples(first, second)
    if first["before"]["metric"] is None and not _equal(first, second, "model", "sha256"):
        raise _CannotTell(
            "without labels the accuracy is agreement with each bundle's own float model, and "
            "the two were made from different models",
            "evaluate both with labels (-e)",
        )
    before, after = (report["after"]["metric"] for report in (first, second))
    if before is None or after is None:
        which = "first" if before is None else "second"
        raise _CannotTell(f"the {which} report has no accuracy", "compress that model again")
    value = (before - after) if metric["higher_is_better"] else (after - before)
    verb = "drops" if value > 0 else "gains" if value < 0 else "does not change:"
    amount = "" if not value else f" {abs(value):.3g} {unit}".rstrip() + ","
    span = f"from {metric_text(before, unit)} to {metric_text(after, unit)}"
    return value, f"{metric['name']} {verb}{amount} {span}"


def _slower(first: Report, second: Report) -> tuple[float, str]:
    cpus = [str(timed_on(report)["cpu"]) for report in (first, second)]
    if cpus[0] != cpus[1]:
        raise _CannotTell(
            f"times of different processors are not comparable ({cpus[0]}; {cpus[1]})",
            "compress both on one machine, or run 'edgebm bench' on both bundles on the device",
        )
    before, after = (report["after"]["p50_ms"] for report in (first, second))
    if not before or not after:
        which = "first" if not before else "second"
        raise _CannotTell(
            f"the latency of the {which} bundle was not measured",
            "only the target host is timed here; for others run 'edgebm bench' on the device",
        )
    value = after / before
    return value, f"p50 latency is {value:.3g} times the first's, {ms(before)} to {ms(after)}"


def _larger(first: Report, second: Report) -> tuple[float, str]:
    before, after = (int(report["after"]["size_bytes"]) for report in (first, second))
    value = after / max(1, before)
    return value, f"size is {value:.3g} times the first's, {size(before)} to {size(after)}"


def _worst_class_drop(first: Report, second: Report) -> tuple[float, str]:
    for which, report in (("first", first), ("second", second)):
        if not class_rows(report.get("classes")):
            raise _CannotTell(
                f"the {which} report has no figures of each class",
                "compress again with labels of classes (-e), with an edgebm that rates them",
            )
    _same_samples(first, second)
    measures = [str(report["classes"]["measure"]) for report in (first, second)]
    if measures[0] != measures[1]:
        raise _CannotTell(
            f"classes are rated by {measures[0]} in the first report and by {measures[1]} in the "
            "second",
            "evaluate both with the same --metric",
        )
    before, after = (
        {row.label: row.after for row in class_rows(report["classes"])}
        for report in (first, second)
    )
    both = [label for label in before if label in after]
    if not both:
        raise _CannotTell("the reports rate no class in common", "evaluate both on one set")
    worst = max(both, key=lambda label: before[label] - after[label])
    value = before[worst] - after[worst]
    span = f"from {before[worst]:.2f} to {after[worst]:.2f}"
    if value <= 0:
        return value, f"no class loses {measures[0]}; {worst} gains least, {span}"
    return value, f"class {worst} loses {value:.3g} of its {measures[0]}, {span}"


def _same_metric(first: Report, second: Report) -> None:
    texts = []
    for report in (first, second):
        metric = report["metric"]
        better = "more" if metric["higher_is_better"] else "less"
        texts.append(f"{metric['name']} in {metric['unit'] or 'no unit'}, {better} is better")
    if texts[0] != texts[1]:
        raise _CannotTell(
            f"the metrics differ ({texts[0]}; {texts[1]})", "evaluate both with the same --metric"
        )


def _same_samples(first: Report, second: Report) -> None:
    hashes = [report["data"].get("evaluation_sha256") for report in (first, second)]
    if None in hashes:
        which = "first" if hashes[0] is None else "second"
        raise _CannotTell(
            f"the {which} report does not say which samples it was evaluated on",
            "compress that model again with this edgebm",
        )
    if hashes[0] != hashes[1]:
        raise _CannotTell(
            "the two were evaluated on different samples "
            f"(evaluation_sha256 {hashes[0][:12]} and {hashes[1][:12]})",
            "give both runs of 'edgebm compress' the same -e",
        )


def _equal(first: Report, second: Report, part: str, key: str) -> bool:
    return bool(first[part].get(key) == second[part].get(key))


_GATES: Mapping[str, Callable[[Report, Report], tuple[float, str]]] = {
    "max_drop": _drop,
    "max_slower": _slower,
    "max_larger": _larger,
    "max_worst_class_drop": _worst_class_drop,
}


def verdict(gates: Sequence[Mapping[str, Any]]) -> str:
    """How many gates failed and which; "" if none did."""
    failed = [option(str(gate["name"])) for gate in gates if not gate["passed"]]
    if not failed:
        return ""
    return f"{len(failed)} of {len(gates)} gates failed: {', '.join(failed)}"
