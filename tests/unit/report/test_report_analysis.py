"""The sections on blame, repair and classes, in a report and in an analysis of its own."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any
from xml.etree import ElementTree as ET

import pytest
from analyses import CLASSES, NASTY, REPAIR, activation, analysis, even, layer
from rich.console import Console
from test_report_html import parse, svg_texts

from edgebm.report.blame_figures import MAX_RANKED, ranking_svg
from edgebm.report.change_figures import MAX_CLASSES, classes_svg, repair_svg
from edgebm.report.classes import class_rows, class_sentences, significance_text
from edgebm.report.figures import candidates_svg
from edgebm.report.histogram import histogram_svg
from edgebm.report.html import render_analysis, render_html
from edgebm.report.layer_table import print_layers


@pytest.fixture
def report() -> dict[str, Any]:
    return json.loads((Path(__file__).parent / "report.json").read_text())


def alone(given: dict[str, Any], report: dict[str, Any]) -> dict[str, Any]:
    """What `edgebm.analyze` returns."""
    keys = ("created_with", "target", "recipe", "model", "data", "notes", "skips", "warnings")
    floats = [each for each in report["layers"] if each["precision"] == "float"]
    return {**{key: report[key] for key in keys}, "layers": floats, "analysis": given}


@pytest.mark.parametrize("count", [1, 5, MAX_RANKED, MAX_RANKED + 1, 200])
def test_pages_of_any_number_of_layers(count: int, report: dict[str, Any]) -> None:
    given = even(count)
    for page in (
        render_html({**report, "analysis": given}),
        render_analysis(alone(given, report)),
    ):
        tags = parse(page)
        assert "Which layer is to blame" in page
        assert len(page.encode()) < 1_000_000
        for i in range(count):
            assert f">l{i}<" in page
        shown = min(count, MAX_RANKED)
        mini = [dict(found) for tag, found in tags.seen if found.get("class") == "mini"]
        assert len(mini) == 2 * shown
        assert (f"The other {count - MAX_RANKED} layers" in page) == (count > MAX_RANKED)


def test_a_report_without_an_analysis_has_none_of_the_sections(report: dict[str, Any]) -> None:
    page = render_html(report)
    for words in ("Which layer is to blame", "What was lifted", "Class by class", "arrow: repair"):
        assert words not in page


def test_a_page_of_an_analysis_needs_nothing_else(report: dict[str, Any]) -> None:
    page = render_analysis(alone(even(6), report))
    for tag, attributes in parse(page).seen:
        assert tag not in {"script", "link", "iframe", "img", "object"}
        assert (attributes.get("href") or "#").startswith("#")
    assert not re.search(r"url\((?!['\"]?#)", page)
    assert "No speed and no accuracy on labels was measured" in page
    assert page == render_analysis(json.loads(json.dumps(alone(even(6), report), sort_keys=True)))


def test_hostile_names_are_escaped_everywhere(report: dict[str, Any]) -> None:
    given = analysis([layer(NASTY, 20.5, 31.0, op=NASTY), layer("x" * 5000, 40.0, 20.1)])
    given["layers"][0]["activation"]["value"] = NASTY
    given["repair"] = {**REPAIR, "lifted": [NASTY], "candidate": NASTY}
    report["classes"] = {
        **CLASSES,
        "labels": [NASTY, "a", "b"],
        "measure": NASTY,
        "worst": {**CLASSES["worst"], "class": NASTY},
    }
    report["analysis"] = given
    report["layers"][0]["name"] = NASTY
    for page in (render_html(report), render_analysis(alone(given, report))):
        assert "<script" not in page
        assert "\x1b" not in page.split("<h2>Layers</h2>")[0]
        assert all(tag != "script" for tag, _ in parse(page).seen)
    # matplotlib would read $x_1$ as a formula
    assert any(
        "$x_1$" in text for text in svg_texts(ranking_svg(analysis([layer("$x_1$", 1, 2)])))
    )


def test_the_ranking_shows_shares_gains_and_what_was_lifted() -> None:
    given = analysis([layer("a", 20.4, 30.0, lifted=True), layer("b", 30.0, 19.5)])
    texts = svg_texts(ranking_svg(given))
    for words in ("a · Conv", "90 % · 20.4 dB", "+10.0 dB", "-0.5 dB", "lifted to float"):
        assert words in texts, words
    assert "lifted to float" not in svg_texts(ranking_svg(even(3)))
    assert ranking_svg(analysis([], None)) == ""
    assert ranking_svg(analysis([layer("a", None, None)], None))  # nothing is lost at all


def test_a_layer_without_weights_or_input(report: dict[str, Any]) -> None:
    given = analysis([layer("a", 20.0, None, weight=None, activation=None, local_db=None)])
    page = render_analysis(alone(given, report))
    assert page.count("<small>none</small>") == 2
    assert "all of it" in page


def test_times_have_a_column_only_where_they_were_measured(report: dict[str, Any]) -> None:
    given = even(3)
    assert "µs" not in render_html({**report, "analysis": given})
    given["layers"][1].update(float_us=12.3, int8_us=4.5)
    page = render_html({**report, "analysis": given})
    assert "µs, float → INT8" in page
    assert "12.3 → 4.5" in page


def test_the_repair_and_its_steps(report: dict[str, Any]) -> None:
    report["analysis"] = {**even(3), "repair": REPAIR}
    report["constraints"]["max_drop"] = 1.0
    page = render_html(report)
    for words in (
        "What was lifted to float",
        "90.12",
        "0.441 ms",
        "87 % kept",
        "1 layer in float",
    ):
        assert words in page, words
    texts = svg_texts(repair_svg(report))
    for words in ("kept", "taken back", "limit 91.44", "layers lifted to float"):
        assert words in texts, words
    assert "arrow: repair" in svg_texts(candidates_svg(report))
    report["analysis"]["repair"] = {**REPAIR, "lifted": [], "tried": [], "kept_gain": None}
    assert "lifting brought nothing" in render_html(report)
    assert repair_svg(report) == ""
    assert "arrow: repair" not in svg_texts(candidates_svg(report))


def test_classes_before_and_after(report: dict[str, Any]) -> None:
    report["classes"] = CLASSES
    report["significance"] = {"test": "mcnemar", "p_value": 0.0004, "lost": 30, "won": 4}
    assert [row.label for row in class_rows(CLASSES)] == ["yield", "stop", "ahead"]
    page = render_html(report)
    assert "Class yield lost most: its recall went from 95.00 to 70.00." in page
    assert "30 samples right before are wrong now, 4 the other way" in page
    assert "p &lt; 0.001" in page
    texts = svg_texts(classes_svg(class_rows(CLASSES), "recall"))
    assert "yield  (12)" in texts
    many = {
        "measure": "recall",
        "labels": list(range(100)),
        "counts": [1] * 100,
        "before": [50.0] * 100,
        "after": [None] + [50.0] * 99,
    }
    report["classes"] = many
    assert f"The {MAX_CLASSES}\n" in render_html(report)
    assert len(class_rows(many)) == 99
    assert class_rows(None) == []


def test_what_is_said_of_significance() -> None:
    test = {"test": "mcnemar", "p_value": 0.31, "lost": 1, "won": 3}
    assert significance_text(test) == (
        "1 sample right before are wrong now, 3 the other way: a difference that chance explains "
        "(McNemar's test, p = 0.310)."
    ).replace("1 sample right before are", "1 sample right before is")
    assert significance_text({**test, "lost": 0, "won": 0}) == "Every sample is judged as before."
    assert "more than chance" in significance_text({**test, "p_value": 0.01})
    assert class_sentences({}) == []


def test_a_histogram_colours_what_is_cut_off() -> None:
    bins = {"low": -4.0, "high": 4.0, "counts": [1] * 64}
    root = ET.fromstring(histogram_svg(bins, (-2.0, 3.0), "a < b"))
    inside, cut, _, mark = root.findall("path")
    assert (inside.get("class"), cut.get("class")) == ("in", "cut")
    # 1/4 of the width is cut off at the left, 1/8 at the right
    assert cut.get("d", "").startswith("M0 ")
    assert inside.get("d", "").startswith("M37.5 ")
    assert "H131.2" in mark.get("d", "")
    assert root.find("title").text == "a < b"  # type: ignore[union-attr]
    whole = ET.fromstring(histogram_svg(bins, (-9.0, 9.0), ""))
    assert [path.get("class") for path in whole.findall("path")] == ["in", "base", "span"]


def test_a_single_value_is_seen_in_a_histogram() -> None:
    counts = [1_000_000, *([0] * 62), 1]
    svg = histogram_svg({"low": 0.0, "high": 1.0, "counts": counts}, None, "")
    heights = [float(h) for h in re.findall(r"v-([\d.]+)", svg)]
    assert len(heights) == 2
    assert heights[0] > heights[1] >= 1.5
    assert histogram_svg({"low": 0.0, "high": 0.0, "counts": [0] * 64}, (0.0, 0.0), "")


def test_the_table_in_the_terminal(capsys: pytest.CaptureFixture[str]) -> None:
    given = even(12)
    given["layers"][0] = layer(
        "wide[red]", 22.0, 27.5, activation=activation(low=-90.0, high=410.0, clipped=0.012)
    )
    print_layers(given, 3, Console(width=140))
    out = capsys.readouterr().out
    assert "the 3 most harmful of 12 layers" in out
    for words in ("wide[red]", "22.0 dB", "+7.5 dB", "[-90, 410]", "1.2 %", "2x"):
        assert words in out, words
    assert "l3" not in out
    print_layers(analysis([], None), 3, Console(width=140))
    assert capsys.readouterr().out == ""
