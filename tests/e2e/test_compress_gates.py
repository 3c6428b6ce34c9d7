"""`edgebm compress --gate`: what is not good enough leaves no bundle."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from graphs import outputs, random_model
from tiny_models import QUICK, short_recipe

import edgebm
from edgebm.cli.main import main
from edgebm.errors import DataError, GateFailed, UsageError
from edgebm.ir.model import Model

RNG = np.random.default_rng(4)
ROWS = RNG.normal(size=(60, 8)).astype(np.float32)


def two_classes() -> Model:
    return random_model(
        """g (float[N,8] x) => (float[N,2] y) {
          h = Gemm(x, w1)
          r = Relu(h)
          y = Gemm(r, w2)
        }""",
        w1=(8, 16), w2=(16, 2),
    )  # fmt: skip


def labels_with(model: Model, *, missed: int) -> np.ndarray:
    """The model's own answers, but `missed` of those it calls 0 are 1."""
    labels = outputs(model, {"x": ROWS})["y"].argmax(axis=1)
    labels[np.flatnonzero(labels == 0)[:missed]] = 1
    return labels


def compress(model: Model, labels: np.ndarray, **arguments: Any) -> edgebm.Result:
    arguments = {"recipe": short_recipe("fp32"), "max_drop": 50.0, **QUICK, **arguments}
    return edgebm.compress(model, data=ROWS, eval=(ROWS, labels), **arguments)


def test_figures_of_gates_that_pass_are_in_the_report(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    from edgebm.report.html import render_html
    from edgebm.report.read import read_report
    from edgebm.report.table import print_summary, stdout_console

    model = two_classes()
    labels = labels_with(model, missed=3)
    sick, healthy = int(labels.sum()), int((labels == 0).sum())
    gates = ["sensitivity>=0.5", "specificity>=1", "top1>=0.9", "accuracy>=0.9", "f1>=0.5"]
    result = compress(model, labels, gates=gates, out=tmp_path / "m.edgebm")
    assert result.path is not None
    report = read_report(result.path)
    found: dict[str, Mapping[str, Any]] = {g["gate"].partition(">")[0]: g for g in report["gates"]}
    assert len(found) == 5
    assert all(gate["passed"] for gate in found.values())
    assert found["sensitivity"]["value"] == pytest.approx(100 * (sick - 3) / sick)
    assert found["sensitivity"]["samples"] == sick
    low, value, high = (found["sensitivity"][key] for key in ("low", "value", "high"))
    assert low < value < high
    assert (found["specificity"]["value"], found["specificity"]["samples"]) == (100.0, healthy)
    assert found["top1"]["value"] == found["accuracy"]["value"] == report["after"]["metric"]
    assert found["top1"]["samples"] is None
    assert "Gate passed: sensitivity is" in render_html(report)
    print_summary(report, stdout_console())
    assert "gate passed: specificity is 100.00 points" in capsys.readouterr().out


def test_a_failed_gate_writes_nothing(tmp_path: Path) -> None:
    model = two_classes()
    out = tmp_path / "m.edgebm"
    gates = ["sensitivity>=0.99", "specificity>=0.99"]
    with pytest.raises(GateFailed, match=r"sensitivity is .* asks for sens") as caught:
        compress(model, labels_with(model, missed=5), gates=gates, out=out)
    assert caught.value.exit_code == 3
    assert "specificity" not in str(caught.value)
    passed = {g["gate"]: g["passed"] for g in caught.value.details["gates"]["host"]}
    assert passed == dict(zip(gates, (False, True), strict=True))
    assert not out.exists()
    # What was measured stays: a run with another gate need not measure again.
    result = compress(model, labels_with(model, missed=5), gates=["sensitivity>=0.2"], out=out)
    assert any("measurements were taken" in note for note in result.notes)
    assert [path.name for path in tmp_path.iterdir()] == ["m.edgebm"]


def test_the_command(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    model = two_classes()
    (tmp_path / "model.onnx").write_bytes(model.to_bytes())
    np.savez(tmp_path / "test.npz", x=ROWS, labels=labels_with(model, missed=5))
    samples = str(tmp_path / "test.npz")
    out = tmp_path / "m.edgebm"
    command = ["compress", str(tmp_path / "model.onnx"), "-d", samples, "-e", samples]
    command += ["-r", "fp32", "--threads", "1", "--measure-seconds", "1", "-o", str(out)]
    assert main([*command, "--gate", "sensitivty>=0.9", "--gate", "mse>=1"]) == 2
    error = capsys.readouterr().err
    assert "--gate 'sensitivty>=0.9'" in error
    assert "--gate 'mse>=1'" in error
    assert main([*command, "--gate", "sensitivity>=0.99"]) == 3
    assert "the gate asks for sensitivity>=0.99" in capsys.readouterr().err
    assert not out.exists()
    assert main([*command, "--gate", "sensitivity>=0.2", "--json"]) == 0
    (gate,) = json.loads(capsys.readouterr().out)["gates"]
    assert gate["passed"]


def test_a_gate_on_what_cannot_be_told_is_refused_before_the_work(tmp_path: Path) -> None:
    model = two_classes()
    with pytest.raises(DataError, match="needs labelled evaluation samples"):
        edgebm.compress(model, data=ROWS, gates=["sensitivity>=0.9"], **QUICK)
    with pytest.raises(DataError, match="no label is 1"):
        compress(model, np.zeros(len(ROWS), np.int64), gates=["sensitivity>=0.9"])
    with pytest.raises(UsageError, match="does not read"):
        compress(model, labels_with(model, missed=1), gates=["sensitivity"])
    with pytest.raises(DataError, match="needs labelled"):
        edgebm.plan(model, data=ROWS, gates=["sensitivity>=0.9"])
