from __future__ import annotations

import numpy as np
import pytest

from edgebm.errors import UsageError
from edgebm.search.gate import gate_faults, parse_gates
from edgebm.spec import TensorSpec

TWO_SCORES = [TensorSpec("y", "float32", ("batch", 2))]


@pytest.mark.parametrize(
    ("text", "name", "limit"),
    [
        ("sensitivity>=0.95", "sensitivity", 95.0),
        ("sensitivity >= 95", "sensitivity", 95.0),
        ("top1>=1", "top1", 100.0),
        ("sqnr>=20.5", "sqnr", 20.5),
        ("mse<=0.25", "mse", 0.25),
    ],
)
def test_shares_are_points(text: str, name: str, limit: float) -> None:
    (gate,) = parse_gates([text])
    assert (gate.metric.name, gate.limit, gate.text) == (name, limit, text)


def test_what_reaches_the_limit_passes() -> None:
    sensitivity, mse = parse_gates(["sensitivity>=0.95", "mse<=0.5"])
    assert [sensitivity.passed(value) for value in (94.99, 95.0, 96.0)] == [False, True, True]
    (edge,) = parse_gates(["sensitivity>=0.55"])
    assert edge.limit > 55 >= 100 * 11 / 20
    assert edge.passed(100 * 11 / 20)
    assert [mse.passed(value) for value in (0.51, 0.5, 0.2)] == [False, True, True]


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("sensitivity", "does not read as NAME>=VALUE"),
        ("sensitivity>0.9", "does not read as NAME>=VALUE"),
        ("sensitivty>=0.9", "did you mean 'sensitivity'"),
        ("sensitivity>=high", "'high' is no number"),
        ("sensitivity>=nan", "a share up to 1"),
        ("sensitivity>=0", "a share up to 1"),
        ("sensitivity>=101", "a share up to 1"),
        ("sensitivity<=0.9", "more is better"),
        ("mse>=0.9", "less is better"),
        ("mse<=inf", "must be finite"),
    ],
)
def test_texts_that_make_no_gate(text: str, words: str) -> None:
    with pytest.raises(UsageError, match=r"NAME>=VALUE|share|finite|number|better|mean") as caught:
        parse_gates([text])
    assert words in str(caught.value)
    assert caught.value.exit_code == 2


def test_all_faults_at_once() -> None:
    with pytest.raises(UsageError) as caught:
        parse_gates(["nothing", "top1>=0.9", "mse>=1"])
    assert len(caught.value.details["faults"]) == 2


def test_labels_that_a_gate_cannot_use() -> None:
    gates = parse_gates(["sensitivity>=0.9", "top1>=0.9"])
    assert not list(gate_faults(gates, TWO_SCORES, np.array([0, 1])))
    (fault,) = gate_faults(gates, TWO_SCORES, np.array([0, 0]))
    assert "no label is 1" in fault
    assert all("labelled" in fault for fault in gate_faults(gates, TWO_SCORES, None))
