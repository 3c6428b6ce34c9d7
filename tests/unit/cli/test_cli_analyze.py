from __future__ import annotations

import json
from pathlib import Path

import pytest

from edgebm.cli.main import main
from edgebm.demo import CALIBRATION, demo_files


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("analyze")
    for name, content in demo_files().items():
        (path / name).write_bytes(content)
    return path


def arguments(folder: Path, *more: str, name: str = "digits_cnn") -> list[str]:
    return ["analyze", str(folder / f"{name}.onnx"), "-d", str(folder / CALIBRATION), *more]


@pytest.mark.parametrize("name", ["digits_cnn", "digits_transformer"])
def test_json_has_the_figures_the_sentences_and_the_page(
    name: str, folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    page = tmp_path / "a.html"
    args = arguments(folder, "--json", "-o", str(page), "--subset-size", "20", name=name)
    assert main(args) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["page"] == str(page)
    assert found["target"] == "host"
    assert found["data"]["calibration_samples"] == 20
    assert found["findings"]
    names = [layer["name"] for layer in found["analysis"]["layers"]]
    text = page.read_text("utf-8")
    for label in names:
        assert label in text
    assert found["model"]["sha256"] in text


def test_the_table_the_sentences_and_that_no_speed_was_measured(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    page = tmp_path / "a.html"
    assert main(arguments(folder, "--top", "2", "--subset-size", "20", "-o", str(page))) == 0
    printed = capsys.readouterr()
    assert "the 2 most harmful of" in printed.out
    assert "the worst output keeps" in printed.out
    assert "No speed was measured" in printed.out
    assert printed.out.splitlines()[-1] == str(page)
    assert "sensitivity" in printed.err
    assert main(arguments(folder, "-o", str(page))) == 2
    assert "give --force" in capsys.readouterr().err


def test_ignored_layers_are_left_out(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(arguments(folder, "--ignored", "Conv", "--json", "--subset-size", "20")) == 0
    found = json.loads(capsys.readouterr().out)
    assert "Conv" not in {layer["op"] for layer in found["analysis"]["layers"]}
    assert "it is on the ignored list" in {layer["why"] for layer in found["layers"]}


def test_nothing_to_quantize(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(arguments(folder, "-r", "fp32")) == 0
    out = capsys.readouterr().out
    assert "No layer runs on integers, so none is to blame." in out
    assert "its weight was not quantized" in out


def test_without_samples(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["analyze", str(folder / "digits_cnn.onnx")]) == 2
    err = capsys.readouterr().err
    assert "--data is missing" in err
    assert "give samples with -d samples.npz" in err


def test_wrong_arguments_at_once(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    args = ["analyze", "no.onnx", "-d", "no.npz", "-r", "no", "-t", "no", "--top", "0"]
    assert main([*args, "--subset-size", "0", "-o", str(tmp_path / "no" / "a.html")]) == 2
    err = capsys.readouterr().err
    for words in (
        "no.onnx",
        "no.npz",
        "--top 0",
        "--subset-size 0",
        "does not exist",
        "7 arguments",
    ):
        assert words in err, words


def test_a_wrong_recipe_alone(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(arguments(folder, "-r", "imt8")) == 2
    assert "imt8" in capsys.readouterr().err


def test_it_stands_with_the_host_commands(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--help"]) == 0
    out = capsys.readouterr().out
    assert "analyze" in out.split("Host commands")[1].split("Device commands")[0]
