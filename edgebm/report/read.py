"""The report in a bundle."""

from __future__ import annotations

import os
from pathlib import Path

from edgebm.errors import UsageError
from edgebm.report.rows import Report, check_report, per_target
from edgebm.runtime.bundle import read_bundle
from edgebm.runtime.strict_json import parse_json


def read_report(path: str | os.PathLike[str]) -> Report:
    """The `report.json` of a bundle.

    Raises:
        BundleError: the bundle is damaged, or its report is missing or of another version.
        UsageError: there is no such file, or the bundle was written without a report.
    """
    members = read_bundle(Path(path)).members
    if "report.json" not in members:
        raise UsageError(
            f"{path} holds no report", hint="only bundles of 'edgebm compress' hold one"
        )
    return check_report(parse_json(bytes(members["report.json"]), f"{path}: report.json"))


def report_for(report: Report, target: str | None, name: str) -> Report:
    """The part of `report` that is about `target`; without one, about the first.

    Raises:
        UsageError: the bundle called `name` has no such target.
    """
    parts = {str(part["target"]): part for part in per_target(report)}
    if target is None:
        return next(iter(parts.values()))
    if target not in parts:
        raise UsageError(
            f"{name} has no target '{target}'", hint=f"its targets are {', '.join(parts)}"
        )
    return parts[target]
