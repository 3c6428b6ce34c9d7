"""`edgebm demo`, and every command on what it leaves behind."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

import edgebm
from edgebm.cli.main import main
from edgebm.demo import MODELS


@pytest.fixture(scope="module")
def demo(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("demo") / "out"
    assert main(["demo", "--quick", "-o", str(out)]) == 0
    return out


def test_it_leaves_bundles_and_pages_and_nothing_else(demo: Path) -> None:
    names = {path.name for path in demo.iterdir()}
    made = {f"{name}{end}" for name in MODELS for end in (".onnx", ".edgebm", ".html")}
    assert names == made | {"calibration.npz", "test.npz", "one_image.npz"}


@pytest.mark.parametrize("name", MODELS)
def test_accuracy_is_kept(name: str, demo: Path, capsys: pytest.CaptureFixture[str]) -> None:
    values = {}
    for end in (".onnx", ".edgebm"):
        args = ["evaluate", str(demo / f"{name}{end}"), "-d", str(demo / "test.npz")]
        assert main([*args, "--metric", "top1", "--json"]) == 0
        values[end] = json.loads(capsys.readouterr().out)["value"]
    assert values[".edgebm"] >= values[".onnx"] - 1.0


@pytest.mark.parametrize("name", MODELS)
def test_bundles_run_and_verify(name: str, demo: Path, tmp_path: Path) -> None:
    bundle, scores = str(demo / f"{name}.edgebm"), tmp_path / "scores.npz"
    assert main(["verify", bundle]) == 0
    assert main(["run", bundle, "-i", str(demo / "one_image.npz"), "-o", str(scores)]) == 0
    with np.load(scores) as got, np.load(demo / "test.npz") as test:
        assert got["scores"].shape == (1, 10)
        assert got["scores"].argmax() == test["labels"][0]


def test_it_says_what_the_layers_of_the_lstm_run_in(
    demo: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    bundle = str(demo / "digits_lstm.edgebm")
    assert main(["report", bundle, "-o", str(tmp_path / "page.html"), "--json"]) == 0
    cells = {cell["name"]: cell for cell in json.loads(capsys.readouterr().out)["cells"]}
    assert [cell["hidden"] for cell in cells.values()] == [112, 112]
    with edgebm.load(bundle) as session:
        assert session.report()["cells_when_made"] == {n: c["ran"] for n, c in cells.items()}
    for cell in cells.values():
        assert (cell["meant"] == "int8") == (cell["ran"] == "int8")


def test_report_compare_and_export(
    demo: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    first, second, *_ = (str(demo / f"{name}.edgebm") for name in MODELS)
    page = tmp_path / "report.html"
    assert main(["report", first, "-o", str(page)]) == 0
    assert page.read_bytes() == (demo / f"{MODELS[0]}.html").read_bytes()
    assert main(["report", first, second]) == 0
    capsys.readouterr()
    assert main(["export", first, "-o", str(tmp_path / "files"), "--json"]) == 0
    files = [Path(path) for path in json.loads(capsys.readouterr().out)["files"]]
    assert {path.suffix for path in files} in ({".onnx"}, {".xml", ".bin"})
    assert all(path.stat().st_size for path in files)
