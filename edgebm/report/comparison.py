"""Two bundles side by side: what each does, what differs, and whether limits are kept."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import asdict
from typing import Any

from edgebm.report.gates import GateLimits, check_gates, check_limits
from edgebm.report.read import read_report, report_for
from edgebm.report.rows import Report, comparison_rows, timed_on

_SAME = (
    ("source model", "model", "sha256"),
    ("calibration samples", "data", "sha256"),
    ("evaluation samples", "data", "evaluation_sha256"),
)


def compare(  # noqa: PLR0913 - one keyword per option of the command line
    first: str | os.PathLike[str],
    second: str | os.PathLike[str],
    *,
    target: str | None = None,
    max_drop: float | None = None,
    max_slower: float | None = None,
    max_larger: float | None = None,
    max_worst_class_drop: float | None = None,
) -> dict[str, Any]:
    """Compare what is known of two bundles, and hold the second against the first.

    Nothing is run: the figures are those that each bundle's report holds.

    Args:
        first: the bundle that is good enough as it is.
        second: the one that may replace it.
        target: which target to compare, for bundles of several; None for each one's first.
        max_drop: how much worse the metric may be, in its printed unit.
        max_slower: how many times the p50 latency may be, such as 1.1.
        max_larger: how many times the size may be.
        max_worst_class_drop: how much worse any class may be.

    Returns:
        `passed`, and of each limit in `gates` its name, value, limit, `passed` and a sentence;
        `rows`, `first` and `second` (the chosen candidates), `same`, `differences`, `layers` and
        `notes`. JSON types only.

    Raises:
        UsageError: a limit makes no sense or cannot be checked with these two; all at once.
        BundleError: a bundle is damaged or holds no readable report.
    """
    limits = GateLimits(max_drop, max_slower, max_larger, max_worst_class_drop)
    check_limits(limits)
    names = (str(first), str(second))
    reports = [report_for(read_report(path), target, str(path)) for path in (first, second)]
    return compare_reports((reports[0], reports[1]), names, limits)


def compare_reports(
    reports: tuple[Report, Report], names: tuple[str, str], limits: GateLimits
) -> dict[str, Any]:
    """`compare` for reports that were read before; each is about one target."""
    first, second = reports
    gates = check_gates(first, second, limits)
    return {
        "bundles": list(names),
        "passed": all(gate.passed for gate in gates),
        "gates": [asdict(gate) for gate in gates],
        "rows": [
            {"label": r.label, "first": r.before, "second": r.after, "change": r.change}
            for r in comparison_rows(first, second)
        ],
        "first": first["after"],
        "second": second["after"],
        "same": {what: _same(first, second, part, key) for what, part, key in _SAME},
        "differences": _differences(first, second),
        "layers": _changed_layers(first, second),
        "notes": _notes(reports, names),
    }


def sameness(same: Mapping[str, bool | None]) -> list[str]:
    """Which of model and samples are the same, as sentences."""
    words = {True: "the same", False: "different", None: "not named in one report"}
    parts = []
    for state, text in words.items():
        names = [what for what, value in same.items() if value is state]
        if names:
            verb = "is" if names == ["source model"] else "are"
            listed = " and ".join([*([", ".join(names[:-1])] if names[1:] else []), names[-1]])
            parts.append(f"{listed} {verb} {text}")
    return [part[:1].upper() + part[1:] + "." for part in parts]


def _same(first: Report, second: Report, part: str, key: str) -> bool | None:
    hashes = [report[part].get(key) for report in (first, second)]
    return None if None in hashes else hashes[0] == hashes[1]


def _differences(first: Report, second: Report) -> list[dict[str, str]]:
    """Circumstances that are not the same, each as the two texts."""
    reports = (first, second)
    machines = [timed_on(report) for report in reports]
    facts = [
        ("CPU", *(str(each["cpu"]) for each in machines)),
        ("CPU features", *_only(*(each["features"] for each in machines))),
        ("CPU threads", *(str(each["threads"]) for each in machines)),
        ("source model", *(str(r["model"]["source"]) for r in reports)),
        (
            "calibration samples",
            *(f"{r['data']['calibration_samples']} of {r['data']['source']}" for r in reports),
        ),
        ("evaluation samples", *(str(r["data"]["evaluation_samples"]) for r in reports)),
    ]
    versions = [report["created_with"] for report in reports]
    facts += [
        (name, *(str(v.get(name, "-")) for v in versions))
        for name in sorted({*versions[0], *versions[1]})
    ]
    return [{"what": what, "first": a, "second": b} for what, a, b in facts if a != b]


def _only(first: list[str], second: list[str]) -> tuple[str, str]:
    ones, others = set(first), set(second)
    return ", ".join(sorted(ones - others)) or "-", ", ".join(sorted(others - ones)) or "-"


def _changed_layers(first: Report, second: Report) -> dict[str, Any]:
    """Layers that compute in another precision, and those that only one of the two has."""
    before, after = (
        {str(layer["name"]): layer for layer in report["layers"]} for report in (first, second)
    )
    return {
        "changed": [
            {
                "name": name,
                "op": layer["op"],
                "first": layer["precision"],
                "second": after[name]["precision"],
                "why": after[name]["why"] or layer["why"],
            }
            for name, layer in before.items()
            if name in after and layer["precision"] != after[name]["precision"]
        ],
        "only_first": [name for name in before if name not in after],
        "only_second": [name for name in after if name not in before],
    }


def _notes(reports: tuple[Report, Report], names: tuple[str, str]) -> list[str]:
    """What the reader must know before he trusts the figures."""
    first, second = reports
    notes = []
    one, other = timed_on(first), timed_on(second)
    if one["cpu"] != other["cpu"]:
        notes.append("Times of different processors are not comparable.")
    elif one["threads"] != other["threads"]:
        notes.append("The two were timed with a different number of CPU threads at hand.")
    for report, name in zip(reports, names, strict=True):
        missed = report["missed"]
        notes += [f"{name} missed a limit of its own: {sentence}" for sentence in missed]
        more = report.get("further_targets", {})
        if more and report["target"] not in more:
            listed = ", ".join(more)
            notes.append(f"{name} has more targets (--target compares one of them): {listed}.")
    return notes
