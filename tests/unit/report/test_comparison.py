from __future__ import annotations

import copy
import json
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from edgebm.report.comparison import compare_reports, sameness
from edgebm.report.comparison_figure import comparison_svg, why_no_picture
from edgebm.report.comparison_table import print_compared
from edgebm.report.gates import GateLimits
from edgebm.report.html import render_comparison
from edgebm.report.read import report_for

NAMES = ("old.edgebm", "new.edgebm")
Pair = tuple[dict[str, Any], dict[str, Any]]


@pytest.fixture
def pair() -> Pair:
    report = json.loads((Path(__file__).parent / "report.json").read_text())
    return report, copy.deepcopy(report)


def compared(pair: Pair, **limits: float) -> dict[str, Any]:
    return compare_reports(pair, NAMES, GateLimits(**limits))


def test_equal_reports_differ_in_nothing(pair: Pair) -> None:
    found = compared(pair)
    assert found["same"] == {
        "source model": True,
        "calibration samples": True,
        "evaluation samples": None,  # an old report does not say
    }
    assert (found["differences"], found["notes"], found["gates"]) == ([], [], [])
    assert found["layers"] == {"changed": [], "only_first": [], "only_second": []}
    assert found["passed"]


def test_layers_and_circumstances_that_differ(pair: Pair) -> None:
    second = pair[1]
    second["layers"][1].update(precision="float", why="it is on the ignored list")
    second["layers"][2]["name"] = "renamed"
    second["host"].update(cpu="Other CPU", features=["avx2", "avx512f", "fma"])
    second["created_with"]["openvino"] = "2027.0"
    second["model"]["sha256"] = "0" * 64
    second["missed"] = ["too large"]
    found = compared(pair)
    assert found["layers"]["changed"] == [
        {
            "name": "layer1.0.conv1",
            "op": "Conv",
            "first": "int8",
            "second": "float",
            "why": "it is on the ignored list",
        }
    ]
    assert found["layers"]["only_second"] == ["renamed"]
    different = {each["what"]: (each["first"], each["second"]) for each in found["differences"]}
    assert different == {
        "CPU": ("AMD EPYC 7B13", "Other CPU"),
        "CPU features": ("-", "avx512f"),
        "openvino": ("2026.4.1", "2027.0"),
    }
    assert found["same"]["source model"] is False
    assert found["notes"] == [
        "Times of different processors are not comparable.",
        "new.edgebm missed a limit of its own: too large",
    ]


def test_sameness_in_sentences() -> None:
    same = {"source model": False, "calibration samples": True, "evaluation samples": True}
    assert sameness(same) == [
        "Calibration samples and evaluation samples are the same.",
        "Source model is different.",
    ]
    assert sameness(dict.fromkeys(same, True)) == [
        "Source model, calibration samples and evaluation samples are the same."
    ]


def test_one_target_of_several(pair: Pair) -> None:
    report = pair[0]
    part = {key: report[key] for key in ("before", "candidates", "layers", "notes", "skips")}
    after = {**report["after"], "candidate": "onnxruntime/int8/t4", "p50_ms": None}
    report["further_targets"] = {"pi": {**part, "after": after, "verdict": "", "steps": []}}
    assert report_for(report, None, "old") is report
    assert report_for(report, "pi", "old")["after"]["candidate"] == "onnxruntime/int8/t4"
    with pytest.raises(ValueError, match="old has no target 'toaster'") as caught:
        report_for(report, "toaster", "old")
    assert "host, pi" in caught.value.hint  # type: ignore[attr-defined]
    assert any("more targets" in note for note in compared(pair)["notes"])


def test_the_page_holds_gates_picture_and_changes(pair: Pair) -> None:
    second = pair[1]
    second["after"].update(size_bytes=400_000, p50_ms=0.52)
    second["layers"][1].update(name="layer1.0.conv1", precision="float", why="<why>")
    page = render_comparison(*pair, compared(pair, max_larger=1.1, max_slower=1.5), NAMES)
    for words in (
        "1 of 2 gates failed",
        "size is 1.35 times the first&#39;s",
        "<svg",
        "&lt;why&gt;",
        "old.edgebm",
        "the same",
    ):
        assert words in page, words
    assert page == render_comparison(*pair, compared(pair, max_larger=1.1, max_slower=1.5), NAMES)
    assert "<script" not in page


@pytest.mark.parametrize(
    ("part", "key", "value", "why"),
    [
        ("host", "cpu", "Other", "different processors"),
        ("metric", "name", "f1", "metrics differ"),
    ],
)
def test_no_picture_of_what_is_not_comparable(
    part: str, key: str, value: str, why: str, pair: Pair
) -> None:
    assert comparison_svg(*pair, NAMES).startswith("<svg")
    pair[1][part][key] = value
    assert comparison_svg(*pair, NAMES) == ""
    assert why in why_no_picture(*pair)
    assert why in render_comparison(*pair, compared(pair), NAMES)


def test_names_in_the_picture_are_no_mathematics(pair: Pair) -> None:
    assert "$a$.edgebm" in comparison_svg(*pair, ("$a$.edgebm", "_b.edgebm"))


def test_the_terminal_says_each_gate_and_change(
    pair: Pair, capsys: pytest.CaptureFixture[str]
) -> None:
    for number, layer in enumerate(pair[0]["layers"][:1] * 15):
        for report, precision in zip(pair, ("int8", "float"), strict=True):
            report["layers"].append(
                {**layer, "name": f"extra{number}", "precision": precision, "why": ""}
            )
    pair[1]["after"]["size_bytes"] *= 2
    found = compared(pair, max_larger=1.1, max_slower=1.1)
    print_compared(*pair, found, Console(width=110))
    text = capsys.readouterr().out
    assert "15 layers compute in another precision" in text
    assert "extra0 (Conv): int8 -> float" in text
    assert "and 3 more" in text
    assert "failed: size is 2 times the first's" in text
    assert "passed: p50 latency is 1 times" in text
