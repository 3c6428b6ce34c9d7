from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from edgebm.cli.evaluate import class_table, lines
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


@pytest.mark.row(71)
def test_the_figure_of_each_class(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    args = ["evaluate", str(folder / "digits_cnn.onnx"), "-d", str(folder / TEST)]
    assert main([*args, "--json"]) == 0
    figures = json.loads(capsys.readouterr().out)
    classes = figures["classes"]
    assert classes["measure"] == "recall"
    assert classes["labels"] == [str(digit) for digit in range(10)]
    assert sum(classes["counts"]) == figures["samples"]
    hits = np.dot(classes["counts"], classes["values"])
    assert hits / figures["samples"] == pytest.approx(figures["value"])
    lowest = int(np.argmin(classes["values"]))
    assert classes["worst"] == {"class": str(lowest), "value": classes["values"][lowest]}
    assert figures["warnings"] == []
    assert main(args) == 0
    captured = capsys.readouterr()
    assert "class  samples  recall" in captured.out
    assert f"Worst class: {lowest}, recall {classes['values'][lowest]:.2f}." in captured.out
    assert "warning" not in captured.err


def test_labels_and_pixels_of_another_model_are_warned_about(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with np.load(folder / TEST) as samples:
        image, labels = samples["image"], samples["labels"]
    np.savez(
        folder / "shuffled.npz", image=image, labels=np.random.default_rng(0).permutation(labels)
    )
    np.savez(folder / "scaled.npz", image=image * 255, labels=labels)
    model = str(folder / "digits_cnn.onnx")
    assert main(["evaluate", model, "-d", str(folder / "shuffled.npz")]) == 0
    assert "warning: the model scores" in capsys.readouterr().err
    assert main(["evaluate", model, "-d", str(folder / "scaled.npz")]) == 0
    assert "is the normalization right?" in capsys.readouterr().err


def test_labels_that_start_at_one(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with np.load(folder / TEST) as samples:
        np.savez(folder / "one.npz", image=samples["image"], labels=samples["labels"] + 1)
    assert main(["evaluate", str(folder / "digits_cnn.onnx"), "-d", str(folder / "one.npz")]) == 2
    assert "use labels - 1" in capsys.readouterr().err


def test_many_classes_are_cut_short() -> None:
    classes = {
        "measure": "recall",
        "labels": [str(k) for k in range(40)],
        "counts": [1] * 40,
        "values": [float(k) for k in range(40)],
        "worst": {"class": "0", "value": 0.0},
    }
    text = class_table(classes).splitlines()
    assert len(text) == 1 + 30 + 1
    assert text[1].split() == ["0", "1", "0.00"]
    assert text[-1].endswith("10 better ones of 40 classes: see --json.")


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
