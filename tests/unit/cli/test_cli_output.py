from __future__ import annotations

import json
import os
from pathlib import Path

import numpy as np
import pytest

from edgebm.cli.output import emit_json, output_faults, write_file
from edgebm.errors import UsageError


def test_json_has_no_nan_and_knows_numpy_and_paths(capsys: pytest.CaptureFixture[str]) -> None:
    emit_json(
        {
            "nan": float("nan"),
            "inf": [np.float32("inf"), 1.5],
            "array": np.arange(3),
            "path": Path("a/b"),
            "flag": True,
            "tuple": (1, None),
        }
    )
    assert json.loads(capsys.readouterr().out) == {
        "nan": None,
        "inf": [None, 1.5],
        "array": [0, 1, 2],
        "path": "a/b",
        "flag": True,
        "tuple": [1, None],
    }


def test_write_and_replace(tmp_path: Path) -> None:
    path = tmp_path / "x.html"
    write_file(path, b"one")
    with pytest.raises(UsageError, match="exists; give --force"):
        write_file(path, b"two")
    assert path.read_bytes() == b"one"
    write_file(path, b"two", force=True)
    assert path.read_bytes() == b"two"
    assert [p.name for p in tmp_path.iterdir()] == ["x.html"]


def test_written_file_has_the_usual_mode(tmp_path: Path) -> None:
    old = os.umask(0o027)
    try:
        write_file(tmp_path / "x", b"")
    finally:
        os.umask(old)
    assert (tmp_path / "x").stat().st_mode & 0o777 == 0o640


def test_nothing_is_left_when_writing_fails(tmp_path: Path) -> None:
    with pytest.raises(TypeError):
        write_file(tmp_path / "x", "text")  # type: ignore[arg-type]
    assert list(tmp_path.iterdir()) == []


def test_faults_of_an_output_path(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")

    def faults(path: Path) -> str:
        return " ".join(output_faults(path, option="--out", force=True))

    assert faults(tmp_path / "new") == ""
    assert faults(tmp_path / "file") == ""
    assert "is a folder" in faults(tmp_path)
    assert "does not exist" in faults(tmp_path / "no" / "x")
    assert "is not a folder" in faults(tmp_path / "file" / "x")


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
def test_folder_that_is_not_writable(tmp_path: Path) -> None:
    tmp_path.chmod(0o555)
    try:
        assert "not writable" in output_faults(tmp_path / "x", option="--out", force=True)[0]
    finally:
        tmp_path.chmod(0o755)
