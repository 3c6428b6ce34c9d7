"""`examples/driving_signs`, shortened: from pictures to a frame loop without torch."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from example_calls import WITHOUT_HOST

import edgebm
from edgebm.recipe import load_recipe

pytest.importorskip("torch")
pytest.importorskip("onnxscript")
ROOT = Path(__file__).parents[2]
EXAMPLE = ROOT / "examples" / "driving_signs"
DATA = os.environ.get("EDGEBM_DATA")
needs_data = pytest.mark.skipif(not DATA, reason="EDGEBM_DATA names no folder of data sets")


def call(*command: object, code: int = 0, **more: str) -> str:
    """What a program of the example prints on stdout."""
    environment = os.environ | {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"} | more
    done = subprocess.run(
        [str(part) for part in command],
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == code, done.stdout + done.stderr
    return done.stdout


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The files that `train.py` writes from every sixteenth picture, and a bundle."""
    path = tmp_path_factory.mktemp("signs")
    train = [sys.executable, EXAMPLE / "train.py", "--out", path, "--epochs", 1, "--every", 40]
    assert "test images" in call(*train)
    # The shell script calls `edgebm`: that of this tree.
    program = path / "bin" / "edgebm"
    program.parent.mkdir()
    program.write_text(f'#!/bin/sh\nexec "{sys.executable}" -m edgebm "$@"\n')
    program.chmod(0o755)
    # So little trained, it may lose what it wants: nothing is repaired.
    short = ["--threads", 1, "--measure-seconds", 0.5, "--subset-size", 32, "--max-drop", 100]
    search = f"{program.parent}{os.pathsep}{os.environ['PATH']}"
    call("sh", EXAMPLE / "compress.sh", path, *short, PATH=search)
    return path


@pytest.fixture(scope="module")
def device(folder: Path) -> Any:
    def drive(*options: object, code: int = 0) -> tuple[dict[str, Any], str]:
        out = folder / "told.json"
        command = [sys.executable, "-c", WITHOUT_HOST, EXAMPLE / "device.py"]
        command += [folder / "signs.edgebm", "--frames", folder / "camera.npz", "--json", out]
        shown = call(*command, "--score", 0, *options, code=code)
        return json.loads(out.read_text()), shown

    return drive


@needs_data
def test_the_bundle_takes_the_frames_of_the_camera(folder: Path) -> None:
    with edgebm.load(folder / "signs.edgebm") as session:
        assert str(session.inputs[0]) == "image: uint8[1, 32, 32, 3]"
    assert (folder / "signs.html").stat().st_size


@needs_data
def test_files_hold_bytes_and_tracks_are_not_mixed(folder: Path) -> None:
    with np.load(folder / "test.npz") as test, np.load(folder / "camera.npz") as camera:
        assert test["image"].dtype == camera["image"].dtype == np.uint8
        assert test["labels"].shape == test["image"].shape[:1]
        seen = {frame.tobytes() for frame in camera["image"]}
    with np.load(folder / "calibration.npz") as calibration:
        assert seen.isdisjoint(frame.tobytes() for frame in calibration["image"])


@needs_data
def test_a_drive_accounts_for_every_frame(device: Any) -> None:
    told, shown = device("--seconds", 1)
    assert told["accounted_for"]
    assert told["answered"] > 0
    assert f"{told['pushed']} pushed = {told['answered']} answered" in shown
    assert "score" in shown
    assert "health: " in shown


@needs_data
def test_a_consumer_that_is_too_slow_loses_frames_and_says_so(device: Any) -> None:
    told, shown = device("--seconds", 1, "--slow", 200)
    assert told["accounted_for"]
    assert told["dropped"] > 0
    assert f"{told['dropped']} dropped" in shown
    assert told["health"]["state"] == "WARN"


@needs_data
def test_frames_of_another_camera_are_failed_results(device: Any, tmp_path: Path) -> None:
    np.save(tmp_path / "frames.npy", np.zeros((3, 40, 40, 3), np.uint8))
    told, shown = device("--seconds", 0.3, "--frames", tmp_path)
    assert told["answered"] == 0
    assert told["failed"]
    assert "InputShape" in shown or "input_shape" in shown


@needs_data
def test_what_cannot_be_read_is_said(folder: Path, tmp_path: Path) -> None:
    device = [sys.executable, EXAMPLE / "device.py", folder / "signs.edgebm"]
    call(*device, "--frames", tmp_path, code=1)
    call(*device, "--frames", tmp_path / "none.npz", code=1)
    damaged = tmp_path / "damaged.edgebm"
    damaged.write_bytes(b"no bundle")
    call(sys.executable, device[1], damaged, "--frames", folder / "camera.npz", code=4)


def test_the_recipe_says_the_numbers_of_the_training(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(EXAMPLE))
    import signs
    import train

    how = load_recipe(EXAMPLE / "recipe.yaml").preprocess
    assert how is not None
    assert (how.mean, how.std) == (train.MEAN, train.STD)
    assert (how.source, how.size) == ((train.SOURCE,) * 2, (train.SIZE,) * 2)
    assert len(set(signs.SIGNS)) == train.CLASSES
    with pytest.raises(SystemExit, match="--data"):
        train.read(Path("none.tar.xz"), 1)
    for name in ("signs", "train"):  # other examples have files of these names
        monkeypatch.delitem(sys.modules, name)
