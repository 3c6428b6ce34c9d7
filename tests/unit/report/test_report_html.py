from __future__ import annotations

import copy
import json
import re
from html.parser import HTMLParser
from pathlib import Path
from typing import Any
from xml.etree import ElementTree as ET

import pytest

from edgebm.errors import BundleFormat
from edgebm.report.figures import MAX_LAYERS, candidates_svg, layers_svg
from edgebm.report.html import render_html

NASTY = "<script>alert(1)</script> & $x_1$ \"q\" 'q' 深度"


@pytest.fixture
def report() -> dict[str, Any]:
    return json.loads((Path(__file__).parent / "report.json").read_text())


class Tags(HTMLParser):
    """Collects tags; complains about one that is closed but was not open."""

    VOID = frozenset({"meta", "br", "hr", "img", "link", "input"})

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.seen: list[tuple[str, dict[str, str | None]]] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.seen.append((tag, dict(attrs)))
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.seen.append((tag, dict(attrs)))

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag


def parse(page: str) -> Tags:
    tags = Tags()
    tags.feed(page)
    assert tags.open == []
    return tags


def svg_texts(svg: str) -> list[str]:
    root = ET.fromstring(svg)
    return ["".join(e.itertext()) for e in root.iter("{http://www.w3.org/2000/svg}text")]


def test_page_is_well_formed_and_needs_nothing_else(report: dict[str, Any]) -> None:
    page = render_html(report)
    for tag, attributes in parse(page).seen:
        assert tag not in {"script", "link", "iframe", "img", "object"}
        for key in ("src", "href", "xlink:href"):
            value = attributes.get(key) or "#"
            assert value.startswith("#"), (tag, value)
    assert "@import" not in page
    assert not re.search(r"url\((?!['\"]?#)", page)


def test_page_holds_every_part(report: dict[str, Any]) -> None:
    page = render_html(report)
    for text in (
        report["verdict"].replace("'", "&#39;"),
        "1.73x faster",
        "the drop of 2.32 points is over the limit of 1 point",
        "layer3.2.conv2",
        "its input has two consumers",
        report["model"]["sha256"],
        report["data"]["sha256"],
        "AMD EPYC 7B13",
        "per_channel",
        report["notes"][0],
        report["warnings"][0],
        "every limit is met",
    ):
        assert text in page, text
    assert page.count("<svg") == 2


def test_equal_reports_give_equal_pages_without_a_date(report: dict[str, Any]) -> None:
    page = render_html(report)
    # the report in a bundle has its keys sorted
    assert page == render_html(json.loads(json.dumps(report, sort_keys=True)))
    assert "dc:date" not in page
    assert not re.search(r"20\d\d-\d\d-\d\d", page)


def test_everything_from_the_report_is_escaped(report: dict[str, Any]) -> None:
    report["name"] = report["verdict"] = report["target"] = NASTY
    report["layers"][1]["name"] = NASTY
    report["candidates"][0].update(why=NASTY, precision=NASTY)
    report["recipe"]["name"] = NASTY
    report["metric"]["name"] = NASTY
    page = render_html(report)
    assert "<script" not in page
    assert all(tag != "script" for tag, _ in parse(page).seen)
    # matplotlib would read $x_1$ as a formula
    assert any("$x_1$" in text for text in svg_texts(layers_svg(report)))


def test_missed_limits_stand_in_the_header(report: dict[str, Any]) -> None:
    report.update(constraints_met=False, missed=["size is 0.30 MB, the limit is 0.2 MB"])
    header = render_html(report).split("</header>")[0]
    assert "a limit was missed" in header
    assert "size is 0.30 MB" in header


def test_nothing_measured_and_nothing_quantized(report: dict[str, Any]) -> None:
    for candidate in report["candidates"]:
        candidate.update(p50_ms=None, p99_ms=None, turns=[], status="not_measured")
    for side in ("before", "after"):
        report[side].update(p50_ms=None, p99_ms=None, peak_memory_mib=None, metric=None)
    report.update(layers=[], skips=[], steps=[], warnings=[])
    page = render_html(report)
    parse(page)
    assert "<svg" not in page
    assert "could not be timed" in page or "No candidate could be timed" in page


def test_further_targets_have_their_own_tables(report: dict[str, Any]) -> None:
    keys = ("before", "after", "candidates", "layers", "skips", "steps")
    part = {**copy.deepcopy({key: report[key] for key in keys}), "verdict": "Smaller there."}
    part["after"]["size_bytes"] = 123_400
    report["further_targets"] = {"raspberry-pi-5": part}
    page = render_html(report)
    parse(page)
    assert "Target raspberry-pi-5" in page
    assert "123.4 kB" in page


def test_a_report_that_lacks_parts_is_refused(report: dict[str, Any]) -> None:
    del report["candidates"]
    with pytest.raises(BundleFormat, match="candidates"):
        render_html(report)


def test_picture_names_the_candidates_once_each(report: dict[str, Any]) -> None:
    texts = svg_texts(candidates_svg(report))
    for label, count in (("int8 t2", 2), ("int8 t1", 2), ("f32 t2", 2), ("int8+bf16 t1", 1)):
        assert texts.count(label) == count
    assert "limit 91.44" in texts
    assert {"OpenVINO", "ONNX Runtime"} <= set(texts)


def test_picture_labels_do_not_overlap(report: dict[str, Any]) -> None:
    for i, candidate in enumerate(report["candidates"]):
        if candidate["p50_ms"]:
            candidate.update(p50_ms=0.5 + 0.004 * i, metric=92.3 + 0.01 * i)
    svg = ET.fromstring(candidates_svg(report))
    boxes = []
    for text in svg.iter("{http://www.w3.org/2000/svg}text"):
        words = "".join(text.itertext())
        if re.fullmatch(r"\S+ t\d", words):
            x, y = float(text.attrib["x"]), float(text.attrib["y"])
            width = 4.5 * len(words)  # narrower than any font, so only true overlaps count
            anchor = re.search(r"text-anchor: (\w+)", text.attrib["style"])
            shift = {"middle": 0.5, "end": 1.0}.get(anchor[1], 0.0) if anchor else 0.0
            boxes.append((x - shift * width, y - 6, x + (1 - shift) * width, y))
    assert len(boxes) > 4
    for i, a in enumerate(boxes):
        for b in boxes[:i]:
            apart = a[2] <= b[0] or b[2] <= a[0] or a[3] <= b[1] or b[3] <= a[1]
            assert apart, (a, b)


def test_pictures_of_only_known_or_only_unknown_accuracy(report: dict[str, Any]) -> None:
    unknown = copy.deepcopy(report)
    for candidate in report["candidates"]:
        candidate["metric"] = candidate["metric"] or 92.0
    assert "measured" not in svg_texts(candidates_svg(report))
    for candidate in unknown["candidates"]:
        candidate["metric"] = None
    assert "measured" in svg_texts(candidates_svg(unknown))


def test_a_wide_span_of_latencies_and_a_single_candidate(report: dict[str, Any]) -> None:
    report["candidates"][0]["p50_ms"] = 250.0
    assert "100" in svg_texts(candidates_svg(report))
    report["candidates"] = [report["candidates"][5]]
    assert "int8 t2" in svg_texts(candidates_svg(report))


def test_layers_are_drawn_in_the_order_of_the_graph(report: dict[str, Any]) -> None:
    texts = svg_texts(layers_svg(report))
    names = [layer["name"] for layer in report["layers"]]
    assert [text for text in texts if text in set(names)] == names
    assert "float" in texts


def test_of_many_layers_the_worst_are_drawn(report: dict[str, Any]) -> None:
    report["layers"] = [
        {"name": f"n{i}", "op": "Conv", "precision": "int8", "sqnr_db": float(i), "why": ""}
        for i in range(MAX_LAYERS + 20, 0, -1)
    ]
    drawn = [text for text in svg_texts(layers_svg(report)) if text.startswith("n")]
    assert drawn == [f"n{i}" for i in range(MAX_LAYERS, 0, -1)]
    assert f"The {MAX_LAYERS} worst of {MAX_LAYERS + 20} layers" in " ".join(
        render_html(report).split()
    )


def test_a_metric_of_ones_own_is_called_after_its_function(report: dict[str, Any]) -> None:
    report["metric"]["name"] = "a/long/path/to/judge.py:spearman_dev"
    page = render_html(report)
    assert "spearman_dev" in page
    assert "judge.py" not in page
    assert any(text.startswith("spearman_dev") for text in svg_texts(candidates_svg(report)))
