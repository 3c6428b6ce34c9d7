from __future__ import annotations

import io
from pathlib import Path

import numpy as np
import pytest

from edgebm.cli.main import main
from edgebm.demo import CALIBRATION, MODELS, TEST, demo_files
from edgebm.importers import import_model
from edgebm.ir.recurrent import cell_of, why_no_integers


def test_files_of_the_demo_are_small_and_without_surprises() -> None:
    files = demo_files()
    assert set(files) == {f"{name}.onnx" for name in MODELS} | {CALIBRATION, TEST}
    assert sum(map(len, files.values())) < 900_000
    with np.load(io.BytesIO(files[CALIBRATION])) as arrays:
        assert arrays["image"].shape == (200, 1, 8, 8)
        assert arrays.files == ["image"]
    with np.load(io.BytesIO(files[TEST])) as arrays:
        assert arrays["image"].dtype == np.float32
        assert arrays["image"].shape == (597, 1, 8, 8)
        assert arrays["labels"].shape == (597,)
        assert (arrays["image"].min(), arrays["image"].max()) == (0.0, 16.0)


def test_calibration_and_test_images_are_different() -> None:
    files = demo_files()
    with np.load(io.BytesIO(files[CALIBRATION])) as one, np.load(io.BytesIO(files[TEST])) as two:
        seen = {image.tobytes() for image in one["image"]}
        assert not seen & {image.tobytes() for image in two["image"]}


def test_integer_kernels_take_both_layers_of_the_lstm(tmp_path: Path) -> None:
    path = tmp_path / "digits_lstm.onnx"
    path.write_bytes(demo_files()[path.name])
    cells = [cell_of(node) for node in import_model(path).nodes("LSTM")]
    assert [(c.inputs, c.hidden) for c in cells if c] == [(8, 112), (112, 112)]
    assert [why_no_integers(cell) for cell in cells] == ["", ""]


def test_files_of_an_earlier_run_are_kept(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "digits_cnn.edgebm").write_bytes(b"mine")
    assert main(["demo", "-o", str(tmp_path)]) == 2
    assert "holds digits_cnn.edgebm" in capsys.readouterr().err
    assert [path.name for path in tmp_path.iterdir()] == ["digits_cnn.edgebm"]


def test_a_folder_that_cannot_be_made(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "file").write_bytes(b"")
    assert main(["demo", "-o", str(tmp_path / "file")]) == 2
    assert main(["demo", "-o", str(tmp_path / "no" / "folder")]) == 2
    assert "Traceback" not in capsys.readouterr().err
    assert [path.name for path in tmp_path.iterdir()] == ["file"]
