"""Reports as one HTML page that needs nothing else: no network, no script, no other file."""

from __future__ import annotations

import json
from collections.abc import Mapping
from functools import partial
from importlib.resources import files
from pathlib import PurePath
from typing import Any

from jinja2 import Environment, FunctionLoader, StrictUndefined
from markupsafe import Markup

from edgebm.report.blame import (
    Blamed,
    blamed,
    db_text,
    gain_text,
    input_text,
    percent,
    printable,
    shortened,
    time_text,
    weight_text,
)
from edgebm.report.blame_figures import MAX_RANKED, ranking_svg
from edgebm.report.cells import cell_rows, peers
from edgebm.report.change_figures import MAX_CLASSES, classes_svg, repair_svg
from edgebm.report.classes import class_rows, class_sentences
from edgebm.report.comparison import sameness
from edgebm.report.comparison_figure import comparison_svg, why_no_picture
from edgebm.report.figures import MAX_LAYERS, candidates_svg, layers_svg
from edgebm.report.findings import findings
from edgebm.report.histogram import histogram_svg
from edgebm.report.pruning import cut_rows
from edgebm.report.rows import (
    NONE,
    Report,
    candidate_name,
    check_report,
    comparison_rows,
    floor_text,
    layer_counts,
    metric_label,
    metric_text,
    ms,
    per_target,
    runtime_name,
    size,
    summary_rows,
)
from edgebm.report.states import state_sentences


def render_html(report: Report) -> str:
    """The page for a `report.json`; equal reports give equal text.

    All text of the report is escaped: a model may name its layers as it likes.

    Raises:
        BundleFormat, BundleIncompatible: `report` is not a report of this version.
    """
    check_report(report)
    environment = _environment()
    environment.filters |= {
        "candidate": candidate_name,
        "lowest_db": _lowest_db,
        "metric": partial(metric_text, unit=str(report["metric"]["unit"])),
    }
    first, *further = [_target(each) for each in per_target(report)]
    return environment.get_template("report.html.j2").render(
        **first,
        **_explained(report),
        cells=cell_rows(report),
        cuts=cut_rows(report),
        further=further,
        metric_name=metric_label(report["metric"]),
        floor=floor_text(report),
        candidates_svg=_trusted(candidates_svg(report)),
        layers_svg=_trusted(layers_svg(report)),
        max_layers=MAX_LAYERS,
        peers=peers(report),
        states=state_sentences(report),
        longest=max((step["seconds"] for step in report["steps"]), default=0.0) or 1.0,
        recipe=_recipe_text(report),
    )


def render_analysis(found: Mapping[str, Any]) -> str:
    """The page for what `edgebm.analyze` returns; equal values give equal text."""
    analysis = found["analysis"]
    return (
        _environment()
        .get_template("analysis.html.j2")
        .render(
            r=found,
            name=PurePath(str(found["model"]["source"])).name or "model",
            sentences=findings(analysis),
            figure=_trusted(ranking_svg(analysis)),
            max_ranked=MAX_RANKED,
            recipe=_recipe_text(found),
        )
    )


def render_comparison(
    first: Report, second: Report, compared: Mapping[str, Any], names: tuple[str, str]
) -> str:
    """The page for two reports of one target each; `compared` is what `compare_reports` returns.

    `names` are the headings of the two.
    """
    environment = _environment()
    environment.filters["candidate"] = candidate_name
    return environment.get_template("comparison.html.j2").render(
        c=compared,
        reports=(first, second),
        names=names,
        rows=comparison_rows(first, second),
        sentences=sameness(compared["same"]),
        figure=_trusted(comparison_svg(first, second, names)),
        no_picture=why_no_picture(first, second),
    )


def _environment() -> Environment:
    environment = Environment(
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        loader=FunctionLoader(
            lambda name: files("edgebm.report").joinpath(name).read_text("utf-8")
        ),
    )
    environment.filters |= {
        "blamed": blamed,
        "class_rows": class_rows,
        "counts": layer_counts,
        "db": _db,
        "db_text": db_text,
        "gain": gain_text,
        "input_histogram": _input_histogram,
        "input_text": input_text,
        "ms": ms,
        "percent": percent,
        "printable": printable,
        "runtime": runtime_name,
        "shortened": shortened,
        "size": size,
        "time": time_text,
        "weight_histogram": _weight_histogram,
        "weight_text": weight_text,
    }
    return environment


def _explained(report: Report) -> dict[str, Any]:
    """What the sections on blame, repair and classes need; all of it may be missing."""
    analysis, classes = report.get("analysis"), report.get("classes") or {}
    rows = class_rows(classes)
    return {
        "analysis": analysis,
        "findings": findings(analysis) if analysis else [],
        "ranking_svg": _trusted(ranking_svg(analysis) if analysis else ""),
        "repair_svg": _trusted(repair_svg(report)),
        "max_ranked": MAX_RANKED,
        "classes": classes,
        "class_sentences": class_sentences(report),
        "classes_svg": _trusted(
            classes_svg(rows, printable(str(classes["measure"]))) if rows else ""
        ),
        "max_classes": MAX_CLASSES,
    }


def _target(report: Report) -> dict[str, Any]:
    never = float("inf")
    return {
        "r": report,
        "rows": summary_rows(report),
        "candidates": sorted(report["candidates"], key=lambda c: c["p50_ms"] or never),
    }


def _weight_histogram(layer: Blamed) -> Markup:
    weight = layer.layer["weight"]
    title = f"weights of {layer.name}: {weight_text(weight)}"
    return _trusted(histogram_svg(weight["histogram"], None, title))


def _input_histogram(layer: Blamed) -> Markup:
    activation = layer.layer["activation"]
    covered = (float(activation["low"]), float(activation["high"]))
    title = (
        f"{printable(str(activation['value']))}, input of {layer.name}: {input_text(activation)}"
    )
    return _trusted(histogram_svg(activation["histogram"], covered, title))


def _trusted(svg: str) -> Markup:
    return Markup(svg)  # noqa: S704 - drawn here; the names in it are escaped


def _recipe_text(report: Report) -> str:
    return json.dumps(report["recipe"], indent=2, ensure_ascii=False, sort_keys=True)


def _db(value: float | None) -> str:
    if value is None:
        return NONE
    # Beyond this it is the rounding of float32.
    return f"{value:.1f} dB" if value < 100 else "over 100 dB"


def _lowest_db(values: Mapping[str, float | None]) -> str:
    return _db(min((value for value in values.values() if value is not None), default=None))
