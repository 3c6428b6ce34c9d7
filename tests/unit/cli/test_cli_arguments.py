from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from edgebm.cli.arguments import check_arguments, duration_s, model_name, parse_shapes, source
from edgebm.errors import RecipeError, TargetError, UsageError


@pytest.fixture
def options(tmp_path: Path) -> dict[str, Any]:
    (tmp_path / "samples.npz").write_bytes(b"")
    return {
        "targets": ("host",),
        "recipe": "int8",
        "data": str(tmp_path / "samples.npz"),
        "evaluation": None,
        "force": False,
        "keep": None,
        "max_drop": None,
        "max_latency_ms": None,
        "max_size_mb": None,
        "subset_size": None,
        "threads": None,
        "seed": 0,
        "measure_seconds": 60.0,
        "budget": None,
        "measurements": None,
    }


@pytest.fixture
def model(tmp_path: Path) -> str:
    path = tmp_path / "model.onnx"
    path.write_bytes(b"")
    return str(path)


def test_right_arguments_give_the_shapes(
    model: str, options: dict[str, Any], tmp_path: Path
) -> None:
    out = tmp_path / "m.edgebm"
    assert check_arguments(model, out, ["x:1x64,1x128"], options) == {"x": [(1, 64), (1, 128)]}


def test_all_faults_at_once(options: dict[str, Any], tmp_path: Path) -> None:
    options.update(
        data="nowhere.npz",
        evaluation="nowhere.py:score",
        recipe="int9",
        targets=("host", "toaster"),
        max_drop=-1.0,
        max_latency_ms=float("nan"),
        threads=0,
        seed=-1,
        keep=tmp_path / "samples.npz",
        budget="soon",
        measure_seconds=0.0,
        measurements=tmp_path / "none" / "m.json",
    )
    with pytest.raises(UsageError) as caught:
        check_arguments("nowhere.onnx", tmp_path, ["x=1x2"], options)
    text = str(caught.value)
    for words in (
        "MODEL nowhere.onnx: there is no such file",
        "--data nowhere.npz: there is no such file",
        "there is no file nowhere.py",
        f"--out {tmp_path} is a folder",
        "is a file; give a folder",
        "--max-drop -1.0 must be 0 or more",
        "--max-latency-ms nan must be more than 0",
        "--threads 0 must be 1 or more",
        "--seed -1 must be 0 or more",
        "--shapes x=1x2",
        "--budget soon does not read as a time above 0, such as 90s, 20m or 1h",
        "--measure-seconds 0.0 must be more than 0",
        "--measurements: the folder",
        "int9",
        "toaster",
    ):
        assert words in text, words
    assert len(caught.value.details["faults"]) == 15


def test_a_single_wrong_recipe_or_target_stays_its_own_error(
    model: str, options: dict[str, Any], tmp_path: Path
) -> None:
    with pytest.raises(RecipeError):
        check_arguments(model, tmp_path / "m", [], {**options, "recipe": "int9"})
    with pytest.raises(TargetError):
        check_arguments(model, tmp_path / "m", [], {**options, "targets": ("toaster",)})


def test_an_existing_bundle_needs_force(
    model: str, options: dict[str, Any], tmp_path: Path
) -> None:
    out = tmp_path / "m.edgebm"
    out.write_bytes(b"")
    with pytest.raises(UsageError, match="exists; give --force"):
        check_arguments(model, out, [], options)
    assert check_arguments(model, out, [], {**options, "force": True}) == {}


def test_a_model_that_is_a_folder(options: dict[str, Any], tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="is a folder"):
        check_arguments(str(tmp_path), tmp_path / "m", [], options)


@pytest.mark.parametrize(
    "text", ["x", "x:", ":1x2", "x:1xa", "x:0x2", "x:1x-2", "x:1x2,", "x:1,,2", "x:²"]
)
def test_shapes_that_cannot_be_read(text: str) -> None:
    shapes, faults = parse_shapes([text, "y:1"])
    assert shapes == {"y": [(1,)]}
    assert len(faults) == 1
    assert text in faults[0]


def test_shapes_of_one_input_may_come_in_parts_and_names_may_hold_colons() -> None:
    shapes, faults = parse_shapes(["x:1x2", "x:1x3", "serving:0:4x5"])
    assert shapes == {"x": [(1, 2), (1, 3)], "serving:0": [(4, 5)]}
    assert faults == []


def test_name_and_source_of_a_model(tmp_path: Path) -> None:
    assert model_name("nets/lane.v2.onnx") == "lane.v2"
    assert model_name("package.nets:lane") == "lane"
    assert model_name("nets.py:lane") == "lane"
    assert source("package.nets:lane") == "package.nets:lane"
    assert source("nets/lane.onnx") == Path("nets/lane.onnx")


def test_checking_imports_nothing_heavy(tmp_path: Path) -> None:
    code = (
        "import sys; from edgebm.cli.main import main;"
        f"code = main(['compress', {str(tmp_path / 'no.onnx')!r}]); print(code);"
        "print(*sorted(sys.modules))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    code_line, modules = done.stdout.splitlines()
    assert code_line == "2"
    heavy = {"openvino", "torch", "matplotlib", "rich"}
    assert not heavy & set(modules.split())


@pytest.mark.parametrize("what", ["model", "data", "evaluation"])
def test_not_even_force_replaces_an_input(
    what: str, model: str, options: dict[str, Any], tmp_path: Path
) -> None:
    given = {**options, "force": True, "evaluation": str(tmp_path / "test.npz")}
    (tmp_path / "test.npz").write_bytes(b"")
    out = Path({"model": model, **given}[what])
    with pytest.raises(UsageError, match=f"--out {out} is an input"):
        check_arguments(model, out, [], given)


def test_hints_come_along_when_there_are_several_faults(
    options: dict[str, Any], tmp_path: Path
) -> None:
    wrong = {**options, "recipe": "int9", "targets": ("raspbery-pi-5",)}
    with pytest.raises(UsageError) as caught:
        check_arguments("nowhere.onnx", tmp_path / "m", [], wrong)
    assert "- recipe int9: there is no recipe of this name" in str(caught.value)
    assert "did you mean 'int8'?" in caught.value.hint
    assert "did you mean 'raspberry-pi-5'?" in caught.value.hint


def test_a_name_that_is_too_long(model: str, options: dict[str, Any], tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="name too long"):
        check_arguments(model, tmp_path / ("m" * 300), [], options)


@pytest.mark.parametrize(
    ("text", "seconds"), [("90s", 90), ("20m", 1200), ("1h", 3600), ("1.5h", 5400), ("2d", 172800)]
)
def test_times(text: str, seconds: float) -> None:
    assert duration_s(text) == seconds


@pytest.mark.parametrize("text", ["", "90", "s", "-1s", "0m", "nanh", "infs", "1h30m", "5 weeks"])
def test_what_is_no_time(text: str) -> None:
    with pytest.raises(ValueError, match=r"."):
        duration_s(text)


def test_a_model_is_no_file_of_measurements(
    model: str, options: dict[str, Any], tmp_path: Path
) -> None:
    options["measurements"] = Path(model)
    with pytest.raises(UsageError, match="--measurements: .* is an input"):
        check_arguments(model, tmp_path / "m.edgebm", [], options)
