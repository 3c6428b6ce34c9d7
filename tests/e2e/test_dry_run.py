"""`edgebm compress --dry-run` and `edgebm.plan`: what they say, and that they do nothing."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tiny_models import QUICK, X, cnn, small

import edgebm
from edgebm.cli.main import main
from edgebm.errors import DataError, UsageError


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A model and samples, in the folder that commands run in."""
    (tmp_path / "small.onnx").write_bytes(small().to_bytes())
    np.savez(tmp_path / "x.npz", x=X)
    monkeypatch.chdir(tmp_path)
    return tmp_path


COMMAND = ["compress", "small.onnx", "-d", "x.npz", "--dry-run"]


def test_it_says_the_candidates_of_the_real_run() -> None:
    planned = edgebm.plan(small(), data=X, **QUICK)
    result = edgebm.compress(small(), data=X, **QUICK)
    (target,) = planned["targets"]
    assert {c["id"] for c in target["candidates"]} == {
        c["id"] for c in result.report["candidates"]
    }
    assert planned["estimate"]["seconds"] == pytest.approx(
        sum(stage["seconds"] for stage in planned["estimate"]["stages"])
    )
    # Every stage that a report names was foreseen.
    stages = {stage["name"] for stage in planned["estimate"]["stages"]}
    assert {step["name"] for step in result.report["steps"]} <= stages
    json.dumps(planned)


def test_what_stays_in_float_has_its_node_op_and_reason(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    first = next(node for node in small().nodes() if node.op_type == "Gemm").name
    assert main([*COMMAND, "--ignored", "Gemm", "--json"]) == 0
    planned = json.loads(capsys.readouterr().out)
    refused = [node for each in planned["targets"][0]["placements"] for node in each["refused"]]
    expected = {"name": first, "op": "Gemm", "reason": "it is on the ignored list"}
    assert expected in refused


def test_it_writes_nothing(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    before = {path: path.read_bytes() for path in folder.rglob("*")}
    assert main([*COMMAND, "--keep", "graphs", "-o", "new.edgebm"]) == 0
    assert {path: path.read_bytes() for path in folder.rglob("*")} == before
    out = capsys.readouterr().out
    for words in (
        "nothing was done yet",
        "OpenVINO int8",
        "candidates, timed",
        "about ",
        "measure",
    ):
        assert words in out, words


@pytest.mark.parametrize("out", ["x.npz", "nowhere/m.edgebm", "."])
def test_a_place_to_write_is_not_needed_but_what_is_wrong_with_it_is_said(
    out: str, folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main([*COMMAND, "-o", out]) == 0
    assert f"warning: --out {out}" in capsys.readouterr().err
    assert main([*COMMAND[:-1], "-o", out]) == 2


@pytest.mark.parametrize(
    "wrong",
    [
        ["--max-drop", "-1", "--threads", "0"],
        ["--recipe", "int9"],
        ["--target", "toaster"],
        ["--ignored", "nothing_like_it"],
        ["--shapes", "x:1x8"],
        ["--metric", "top1"],
        ["--eval", "missing.npz"],
        ["--target", "raspberry-pi-5", "--max-latency-ms", "5"],
    ],
    ids=lambda wrong: wrong[0] + wrong[1],
)
def test_wrong_arguments_are_refused_alike(
    wrong: list[str], folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    real = main([*COMMAND[:-1], *wrong])
    first = capsys.readouterr().err
    assert main([*COMMAND, *wrong]) == real
    assert real == 2
    second = capsys.readouterr().err
    assert [x for x in second.splitlines() if x.startswith(("error", "  -", "hint"))] == [
        x for x in first.splitlines() if x.startswith(("error", "  -", "hint"))
    ]


def test_from_python_too() -> None:
    with pytest.raises(UsageError, match=r"max_size_mb .*; max_drop .*"):
        edgebm.plan(small(), data=X, max_size_mb=-1.0, max_drop=-1.0)
    with pytest.raises(DataError):
        edgebm.plan(small(), data={"x": X[:, :4]})


def test_several_targets_and_a_recipe_for_weights() -> None:
    data: dict[str, Any] = {"image": np.zeros((4, 3, 16, 16), np.float32)}
    data["image"][:] = np.random.default_rng(0).normal(size=(4, 3, 16, 16))
    planned = edgebm.plan(cnn(), data=data, target=["host", "raspberry-pi-5"], recipe="w8")
    host, board = planned["targets"]
    assert (host["timed"], board["timed"]) == (True, False)
    for each in (host, board):
        assert {p["kind"] for p in each["placements"]} == {"w8"}
        assert all(p["weights_only"] for p in each["placements"])
        # The step's own reason, and not only that the weight was left.
        refused = [n["reason"] for p in each["placements"] for n in p["refused"]]
        assert refused
        assert all("elements" in reason for reason in refused)
    assert any(s["name"] == "evaluate for raspberry-pi-5" for s in planned["estimate"]["stages"])


def test_without_samples_static_int8_is_only_timed() -> None:
    planned = edgebm.plan(small(), **QUICK)
    (target,) = planned["targets"]
    assert {c["precision"] for c in target["candidates"] if c["only_timed"]} >= {"int8"}
    assert planned["data"]["calibration_samples"] == 0
    assert "quantize_activations" in {skip["step"] for skip in target["skips"]}
    assert any("no samples were given" in warning for warning in planned["warnings"])
