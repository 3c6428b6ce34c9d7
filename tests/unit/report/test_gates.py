from __future__ import annotations

import copy
import json
from pathlib import Path
from typing import Any

import pytest

from edgebm.errors import UsageError
from edgebm.report.gates import GateLimits, check_gates, check_limits

Pair = tuple[dict[str, Any], dict[str, Any]]


@pytest.fixture
def pair() -> Pair:
    """Two equal reports, of labels, classes and evaluation samples that are named."""
    report = json.loads((Path(__file__).parent / "report.json").read_text())
    report["data"]["evaluation_sha256"] = "e" * 64
    report["classes"] = {
        "measure": "recall",
        "labels": ["stop", "yield", "rare"],
        "counts": [90, 60, 0],
        "before": [99.0, 97.0, None],
        "after": [98.0, 96.0, None],
        "worst": {"class": "stop", "before": 99.0, "after": 98.0, "drop": 1.0},
    }
    return report, copy.deepcopy(report)


def only(pair: Pair, **limits: float) -> Any:
    (gate,) = check_gates(*pair, GateLimits(**limits))
    return gate


def test_a_drop_in_the_unit_of_the_metric(pair: Pair) -> None:
    pair[1]["after"]["metric"] = 91.81
    gate = only(pair, max_drop=0.3)
    assert gate.value == pytest.approx(0.5)
    assert not gate.passed
    assert "top1 drops 0.5 points, from 92.31 to 91.81; up to 0.3 points" in gate.sentence
    # Of two printed figures exactly that far apart, the last bit does not decide.
    pair[1]["after"]["metric"] = 92.3
    assert 92.31 - 92.3 > 0.01
    assert only(pair, max_drop=0.01).passed


def test_lower_may_be_better(pair: Pair) -> None:
    for report, value in zip(pair, (0.2, 0.1), strict=True):
        report["metric"].update(name="mse", unit="", higher_is_better=False)
        report["after"]["metric"] = value
    assert only(pair, max_drop=0.0).value == pytest.approx(-0.1)
    assert only((pair[1], pair[0]), max_drop=0.05).passed is False


def test_ratios_of_latency_and_size(pair: Pair) -> None:
    pair[1]["after"].update(p50_ms=pair[0]["after"]["p50_ms"] * 1.2, size_bytes=300_000)
    slower, larger = check_gates(*pair, GateLimits(max_slower=1.1, max_larger=1.05))
    assert (slower.passed, larger.passed) == (False, True)
    assert slower.value == pytest.approx(1.2)
    assert "1.2 times the first's, 0.486 ms to 0.583 ms" in slower.sentence
    assert larger.value == pytest.approx(300_000 / 296_612)


@pytest.mark.row(71)
def test_the_class_that_loses_most(pair: Pair) -> None:
    pair[1]["classes"]["after"] = [98.5, 91.0, None]
    gate = only(pair, max_worst_class_drop=2.0)
    assert (gate.value, gate.passed) == (5.0, False)
    assert "class yield loses 5 of its recall, from 96.00 to 91.00" in gate.sentence
    pair[1]["classes"]["after"] = [98.5, 96.5, None]
    assert only(pair, max_worst_class_drop=0.0).value == -0.5


def metric_differs(second: dict[str, Any]) -> None:
    second["metric"]["name"] = "f1"


def samples_differ(second: dict[str, Any]) -> None:
    second["data"]["evaluation_sha256"] = "f" * 64


def samples_unknown(second: dict[str, Any]) -> None:
    del second["data"]["evaluation_sha256"]


def other_float_model(second: dict[str, Any]) -> None:
    second["model"]["sha256"] = "0" * 64


def other_cpu(second: dict[str, Any]) -> None:
    second["host"]["cpu"] = "Cortex-A76"


def untimed(second: dict[str, Any]) -> None:
    second["after"]["p50_ms"] = None


def no_classes(second: dict[str, Any]) -> None:
    second["classes"] = None


def other_classes(second: dict[str, Any]) -> None:
    second["classes"]["labels"] = ["go", "halt", "rare"]


@pytest.mark.parametrize(
    ("limit", "change", "words"),
    [
        ("max_drop", metric_differs, "the metrics differ (top1 in points, more is better; f1 in"),
        ("max_drop", samples_differ, "different samples (evaluation_sha256 eeeeeeeeeeee and fff"),
        ("max_drop", samples_unknown, "the second report does not say which samples"),
        ("max_slower", other_cpu, "not comparable (AMD EPYC 7B13; Cortex-A76)"),
        ("max_slower", untimed, "latency of the second bundle was not measured"),
        ("max_worst_class_drop", no_classes, "the second report has no figures of each class"),
        ("max_worst_class_drop", samples_differ, "evaluated on different samples"),
        ("max_worst_class_drop", other_classes, "rate no class in common"),
    ],
)
def test_what_cannot_be_compared_is_refused(
    limit: str, change: Any, words: str, pair: Pair
) -> None:
    assert only(pair, **{limit: 1.0}).passed
    change(pair[1])
    with pytest.raises(UsageError) as caught:
        check_gates(*pair, GateLimits(**{limit: 1.0}))
    assert words in str(caught.value)
    assert caught.value.hint


def test_agreement_with_different_float_models_is_no_accuracy(pair: Pair) -> None:
    for report in pair:
        report["before"]["metric"] = None
    assert only(pair, max_drop=1.0).passed
    other_float_model(pair[1])
    with pytest.raises(UsageError, match="made from different models"):
        check_gates(*pair, GateLimits(max_drop=1.0))


def test_everything_that_cannot_be_checked_is_said_at_once(pair: Pair) -> None:
    other_cpu(pair[1])
    samples_differ(pair[1])
    with pytest.raises(UsageError) as caught:
        check_gates(*pair, GateLimits(max_drop=1.0, max_slower=1.1, max_larger=1.1))
    assert len(caught.value.details["faults"]) == 2
    assert "--max-drop cannot" in str(caught.value)
    assert "--max-slower cannot" in str(caught.value)


def test_limits_that_make_no_sense() -> None:
    check_limits(GateLimits(max_drop=0.0, max_slower=1.0))
    with pytest.raises(UsageError) as caught:
        check_limits(GateLimits(max_drop=-1.0, max_slower=0.0, max_larger=float("nan")))
    for words in ("--max-drop must be 0 or more", "--max-slower must be", "--max-larger must be"):
        assert words in str(caught.value)
