from __future__ import annotations

import copy
import json
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from edgebm.errors import BundleFormat, BundleIncompatible
from edgebm.report.rows import (
    check_report,
    comparison_rows,
    floor_text,
    metric_text,
    ms,
    per_target,
    size,
    summary_rows,
)
from edgebm.report.table import print_candidates, print_comparison, print_summary


@pytest.fixture
def report() -> dict[str, Any]:
    return json.loads((Path(__file__).parent / "report.json").read_text())


def by_label(rows: list[Any]) -> dict[str, Any]:
    return {row.label: row for row in rows}


def test_summary_says_each_ratio_in_words(report: dict[str, Any]) -> None:
    rows = by_label(summary_rows(report))
    assert rows["latency, p50"].change == "1.73x faster"
    assert rows["size"].change == "3.65x smaller"
    assert rows["peak memory"].change == "1.23x less"
    assert (rows["latency, p50"].before, rows["latency, p50"].after) == ("0.842 ms", "0.486 ms")


def test_a_p99_that_was_not_earned_is_not_invented(report: dict[str, Any]) -> None:
    row = by_label(summary_rows(report))["latency, p99"]
    assert (row.after, row.change, row.better) == ("not enough calls", "", None)


def test_latency_of_another_board_is_not_measured(report: dict[str, Any]) -> None:
    report["after"].update(p50_ms=None, p99_ms=None)
    rows = by_label(summary_rows(report))
    assert rows["latency, p50"].after == rows["latency, p99"].after == "not measured"


@pytest.mark.parametrize(
    ("after", "met", "higher", "text", "better"),
    [
        (92.31, True, True, "-0.13 points", None),  # within the limit: neither good nor bad
        (90.0, False, True, "-2.44 points", False),
        (93.0, True, True, "+0.56 points", True),
        (92.441, True, True, "no change", None),
        (93.0, False, False, "+0.56 points", False),
    ],
)
def test_metric_change(
    report: dict[str, Any], after: float, met: bool, higher: bool, text: str, better: bool | None
) -> None:
    report["after"]["metric"] = after
    report["constraints_met"] = met
    report["metric"]["higher_is_better"] = higher
    row = summary_rows(report)[0]
    assert (row.label, row.change, row.better) == ("top1", text, better)


def test_without_labels_the_float_model_is_the_reference(report: dict[str, Any]) -> None:
    report["before"]["metric"] = None
    report["metric"].update(name="sqnr", unit="dB")
    report["after"]["metric"] = 31.2
    row = summary_rows(report)[0]
    assert (row.before, row.after, row.change) == ("the reference", "31.20 dB", "")


@pytest.mark.parametrize(
    ("value", "text"), [(0.0123, "0.012 ms"), (1.234, "1.23 ms"), (45.6, "45.6 ms"), (None, "-")]
)
def test_ms(value: float | None, text: str) -> None:
    assert ms(value) == text


@pytest.mark.parametrize(
    ("value", "text"), [(999, "999 B"), (296_612, "296.6 kB"), (1_083_400, "1.08 MB"), (None, "-")]
)
def test_size(value: int | None, text: str) -> None:
    assert size(value) == text


def test_points_are_a_difference_not_a_value() -> None:
    assert metric_text(92.31, "points") == "92.31"
    assert metric_text(31.2, "dB") == "31.20 dB"
    assert metric_text(0.98765, "") == "0.9877"


def test_check_report_lists_all_that_is_missing(report: dict[str, Any]) -> None:
    del report["verdict"], report["layers"]
    with pytest.raises(BundleFormat, match="verdict, layers"):
        check_report(report)


@pytest.mark.parametrize("value", [[], "text", None])
def test_check_report_refuses_what_is_no_report(value: object) -> None:
    with pytest.raises(BundleFormat):
        check_report(value)


def test_check_report_refuses_another_version(report: dict[str, Any]) -> None:
    with pytest.raises(BundleIncompatible, match="report_version 2"):
        check_report({**report, "report_version": 2})


def test_per_target_gives_each_target_its_own_figures(report: dict[str, Any]) -> None:
    part = {key: report[key] for key in ("before", "candidates", "layers", "skips", "steps")}
    after = {**report["after"], "p50_ms": None, "candidate": "other"}
    report["missed"] = ["too large"]
    report["further_targets"] = {"raspberry-pi-5": {**part, "after": after, "verdict": "Smaller."}}
    first, second = per_target(report)
    assert first is report
    assert (second["target"], second["after"]["candidate"]) == ("raspberry-pi-5", "other")
    assert second["missed"] == []


def test_comparison_of_different_metrics_does_not_judge(report: dict[str, Any]) -> None:
    other = copy.deepcopy(report)
    other["metric"]["name"] = "sqnr"
    other["after"]["metric"] = 30.0
    rows = by_label(comparison_rows(report, other))
    assert rows["metric"].better is None
    assert rows["latency, p50"].change == "the same"


def test_summary_in_the_terminal(
    report: dict[str, Any], capsys: pytest.CaptureFixture[str]
) -> None:
    report["missed"] = ["size is 0.30 MB, the limit is 0.2 MB"]
    print_summary(report, Console(width=110))
    text = capsys.readouterr().out
    assert report["verdict"] in text
    assert "missed: size is 0.30 MB, the limit is 0.2 MB" in text
    assert "1.73x faster" in text


def test_names_are_not_read_as_markup(
    report: dict[str, Any], capsys: pytest.CaptureFixture[str]
) -> None:
    report["name"] = "[red]model[/red]"
    report["candidates"][0]["why"] = "[bold]why"
    print_summary(report, Console(width=110))
    print_candidates(report, Console(width=200))
    print_comparison(report, report, ["[a]", "[b]"], Console(width=110))
    text = capsys.readouterr().out
    assert "[red]model[/red]" in text
    assert "[bold]why" in text
    assert "[a]" in text


def test_candidates_are_listed_fastest_first(
    report: dict[str, Any], capsys: pytest.CaptureFixture[str]
) -> None:
    print_candidates(report, Console(width=200))
    text = capsys.readouterr().out
    assert text.index("0.441 ms") < text.index("0.486 ms") < text.index("1.42 ms")
    assert text.index("1.42 ms") < text.index("not measured")


def test_floor_and_limits_are_sentences(report: dict[str, Any]) -> None:
    report["metric"]["floor"] = "at least 20 dB"
    assert floor_text(report) == "At least 20 dB."
    report["constraints"].update(max_latency_ms=2.5, max_size_mb=1.0)
    text = floor_text(report)
    assert text == "At least 20 dB. Limits: latency (p99) up to 2.5 ms; size up to 1 MB."
