from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from graphs import outputs, sqnr_db

from edgebm.cli.main import main
from edgebm.demo import CALIBRATION, demo_files
from edgebm.importers import import_model
from edgebm.ir.model import Model


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("quantize")
    for name, content in demo_files().items():
        (path / name).write_bytes(content)
    return path


@pytest.mark.parametrize("runtime", ["onnxruntime", "openvino"])
def test_the_file_answers_nearly_as_the_float_model(
    runtime: str, folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    model, out = folder / "digits_cnn.onnx", tmp_path / "q.onnx"
    samples = str(folder / CALIBRATION)
    command = ["quantize", str(model), "-d", samples, "--runtime", runtime, "-o", str(out)]
    assert main([*command, "--json"]) == 0
    printed = json.loads(capsys.readouterr().out)
    assert printed["path"] == str(out)
    assert printed["bytes"] == out.stat().st_size < model.stat().st_size
    assert printed["quantize_linear_nodes"] > 0
    with np.load(samples) as arrays:
        feeds = {name: arrays[name][:1] for name in ("image",)}
    (got,), (want,) = (
        list(outputs(m, feeds).values()) for m in (Model.load(out), import_model(model))
    )
    assert sqnr_db(want, got) > 15

    assert main(command) == 2
    assert "give --force" in capsys.readouterr().err
    assert main([*command, "--force"]) == 0
    assert capsys.readouterr().out == f"{out}\n"


def test_all_faults_at_once(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    args = ["quantize", "none.onnx", "-d", "none.npz", "-r", "int9", "-o", str(tmp_path)]
    assert main(args) == 2
    printed = capsys.readouterr().err
    for fault in ("MODEL none.onnx", "--data none.npz", "recipe int9", "is a folder"):
        assert fault in printed
    assert "edgebm quantize --help" in printed


def test_ranges_need_samples(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = folder / "none.onnx"
    assert main(["quantize", str(folder / "digits_cnn.onnx"), "-o", str(out)]) == 2
    assert "-r w8" in capsys.readouterr().err
    assert not out.exists()


def test_one_of_many_processes_is_refused(
    folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("RANK", "1")
    monkeypatch.setenv("WORLD_SIZE", "2")
    for verb in ("quantize", "compress"):
        args = [verb, str(folder / "digits_cnn.onnx"), "-o", str(folder / "not_written")]
        assert main([*args, "-d", str(folder / CALIBRATION)]) == 2
        assert "torchrun started 2 processes" in capsys.readouterr().err
    assert not (folder / "not_written").exists()
