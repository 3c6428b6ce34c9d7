from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from edgebm.cli.evaluate import lines
from edgebm.cli.main import main
from edgebm.demo import CALIBRATION, TEST, demo_files


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for name, content in demo_files().items():
        (tmp_path / name).write_bytes(content)
    return tmp_path


@pytest.mark.parametrize(("name", "least"), [("digits_cnn", 98.0), ("digits_transformer", 96.0)])
def test_the_models_of_the_demo_are_as_good_as_trained(
    name: str, least: float, folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    args = ["evaluate", str(folder / f"{name}.onnx"), "-d", str(folder / TEST)]
    assert main([*args, "--metric", "top1", "--json"]) == 0
    figures = json.loads(capsys.readouterr().out)
    assert figures["metric"] == "top1"
    assert figures["value"] >= least
    with np.load(folder / TEST) as samples:
        assert figures["samples"] == len(samples["labels"])


def test_a_program_of_the_user(
    folder: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(folder)
    (folder / "score.py").write_text(
        "import numpy as np\n"
        "def score(run):\n"
        "    zeros = np.zeros((1, 1, 8, 8), np.float32)\n"
        "    return float(run({'image': zeros})['scores'].size)\n"
    )
    assert main(["evaluate", "digits_cnn.onnx", "-e", "score.py:score", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["value"] == 10.0


def test_samples_without_labels(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    args = ["evaluate", str(folder / "digits_cnn.onnx"), "-d", str(folder / CALIBRATION)]
    assert main(args) == 2
    assert "no labels" in capsys.readouterr().err


def test_wrong_arguments_at_once(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["evaluate", "no.onnx", "-d", "no.npz", "-e", "no.py:f"]) == 2
    err = capsys.readouterr().err
    for words in ("no.onnx", "no.npz", "there is no file no.py", "either --data or --eval"):
        assert words in err
    assert main(["evaluate", "no.onnx"]) == 2
    assert "either --data or --eval" in capsys.readouterr().err


def test_lines_are_aligned_and_groups_indented() -> None:
    assert lines({"a": 1.23456789, "longer": {"x": "y"}}) == [
        "a       1.23457",
        "longer",
        "  x  y",
    ]
