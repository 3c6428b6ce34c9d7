"""The report as one HTML page that needs nothing else: no network, no script, no other file."""

from __future__ import annotations

import json
from collections.abc import Mapping
from functools import partial
from importlib.resources import files
from typing import Any

from jinja2 import Environment, StrictUndefined
from markupsafe import Markup

from edgebm.report.figures import MAX_LAYERS, candidates_svg, layers_svg
from edgebm.report.rows import (
    NONE,
    Report,
    candidate_name,
    check_report,
    floor_text,
    layer_counts,
    metric_text,
    ms,
    per_target,
    size,
    summary_rows,
)


def render_html(report: Report) -> str:
    """The page for a `report.json`; equal reports give equal text.

    All text of the report is escaped: a model may name its layers as it likes.

    Raises:
        BundleFormat, BundleIncompatible: `report` is not a report of this version.
    """
    check_report(report)
    environment = Environment(
        autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    environment.filters |= {
        "candidate": candidate_name,
        "counts": layer_counts,
        "db": _db,
        "lowest_db": _lowest_db,
        "metric": partial(metric_text, unit=str(report["metric"]["unit"])),
        "ms": ms,
        "size": size,
    }
    source = files("edgebm.report").joinpath("report.html.j2").read_text("utf-8")
    first, *further = [_target(each) for each in per_target(report)]
    return environment.from_string(source).render(
        **first,
        further=further,
        metric_name=str(report["metric"]["name"]),
        floor=floor_text(report),
        candidates_svg=Markup(candidates_svg(report)),  # noqa: S704 - names in it are escaped
        layers_svg=Markup(layers_svg(report)),  # noqa: S704
        max_layers=MAX_LAYERS,
        longest=max((step["seconds"] for step in report["steps"]), default=0.0) or 1.0,
        recipe=json.dumps(report["recipe"], indent=2, ensure_ascii=False, sort_keys=True),
    )


def _target(report: Report) -> dict[str, Any]:
    never = float("inf")
    return {
        "r": report,
        "rows": summary_rows(report),
        "candidates": sorted(report["candidates"], key=lambda c: c["p50_ms"] or never),
    }


def _db(value: float | None) -> str:
    if value is None:
        return NONE
    # Beyond this it is the rounding of float32.
    return f"{value:.1f} dB" if value < 100 else "over 100 dB"


def _lowest_db(values: Mapping[str, float | None]) -> str:
    return _db(min((value for value in values.values() if value is not None), default=None))
