"""What was cut, as rows of a report."""

from __future__ import annotations

from typing import Any

from edgebm.report.pruning import cut_rows

METRIC = {"name": "top1", "unit": "points"}


def trial(**changes: Any) -> dict[str, Any]:
    plain = {
        "amount": 1.0,
        "params": 250_000,
        "float_ms": [0.8, 0.5],
        "speedup": 3.21,
        "candidate": "onnxruntime/pruned+int8/t1",
        "metric": 91.5,
        "taken": True,
        "why": "",
        "notes": [],
    }
    return {**plain, **changes}


def report(*trials: dict[str, Any]) -> dict[str, Any]:
    pruning = {"unpruned_speedup": 1.9, "params": 1_000_000, "trials": list(trials)}
    return {"metric": METRIC, "pruning": pruning}


def test_nothing_to_say_where_nothing_is_cut() -> None:
    assert cut_rows({"metric": METRIC, "pruning": None}) == []
    assert cut_rows({"metric": METRIC}) == []


def test_each_amount_is_a_row_beside_the_whole_model() -> None:
    lost = trial(
        amount=0.5, taken=False, why="top1 drops 3 points; 1 are allowed", speedup=1.7, metric=88.0
    )
    whole, first, second = cut_rows(report(trial(), lost))
    assert (whole.amount, whole.parameters, whole.in_float) == (
        "nothing cut",
        "1.00 M",
        "0.800 ms",
    )
    assert (whole.speedup, whole.taken, whole.result) == ("1.90 times float", False, "")
    assert (first.parameters, first.in_float, first.speedup) == (
        "0.25 M (25 %)",
        "0.500 ms",
        "3.21 times float",
    )
    assert (first.metric, first.result, first.taken) == ("91.50", "taken", True)
    assert second.amount == "50 % of the recipe's sparsity"
    assert "3 points" in second.result


def test_what_was_refused_before_it_was_trained() -> None:
    slow = trial(taken=False, why="not faster", speedup=None, metric=None, float_ms=None)
    whole, row = cut_rows(report(slow))
    assert whole.taken
    assert whole.result == "taken"
    assert (row.speedup, row.in_float, row.result) == ("-", "-", "not faster")
