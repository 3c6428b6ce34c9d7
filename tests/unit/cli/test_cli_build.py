"""`edgebm build`: what it stores, what it says, and when it fails."""

from __future__ import annotations

import errno
import json
import os
import signal
import subprocess
import sys
from dataclasses import replace
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest
import slow_engine

import edgebm
from edgebm.bundle_writer import write_bundle
from edgebm.cli.main import main
from edgebm.runtime.bundle import read_bundle
from edgebm.runtime.cache_place import CacheFolder
from edgebm.runtime.container import MANIFEST

DATA = Path(__file__).parents[2] / "device" / "data"
IMAGE = str(DATA / "image.edgebm")


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("EDGEBM_CACHE", str(tmp_path / "cache"))


@pytest.fixture
def always(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(CacheFolder, "pays", lambda *_: True)


def said(capsys: pytest.CaptureFixture[str], *args: str) -> dict[str, Any]:
    assert main(["build", *args, "--json"]) == 0
    found: dict[str, Any] = json.loads(capsys.readouterr().out)
    return found


@pytest.mark.usefixtures("always")
def test_what_it_stores_is_what_a_program_finds(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    first = said(capsys, IMAGE, "--target", "openvino")
    assert first["cache"]["state"] == "stored"
    assert (first["name"], first["runtime"]) == ("image", "openvino")
    assert first["folder"] == str(tmp_path / "cache")
    (entry,) = first["entries"]
    assert entry["label"] == "image any-cpu/openvino f32"
    assert entry["size_bytes"] > first["cache"]["bytes"] > 0
    with edgebm.load(IMAGE, target="openvino") as session:
        assert session.report()["cache"]["state"] == "hit"
    assert said(capsys, IMAGE, "--target", "openvino")["cache"]["state"] == "hit"


@pytest.mark.usefixtures("always")
def test_its_words(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    other = tmp_path / "other folder"
    args = ["build", IMAGE, "--target", "openvino", "--cache", str(other)]
    assert main(args) == 0
    out = capsys.readouterr().out
    assert str(other) in out
    assert "any-cpu/openvino (f32)" in out
    assert "stored" in out
    assert "opens in" in out
    assert main(args) == 0
    assert "it was stored already" in capsys.readouterr().out
    assert not (tmp_path / "cache").exists()


@pytest.mark.usefixtures("always")
def test_the_folder_is_listed_and_cleared(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    said(capsys, IMAGE, "--target", "openvino")
    (tmp_path / "cache" / "0-0.edgebm.compiled").write_bytes(b"from elsewhere")
    assert main(["build", "--list"]) == 0
    out = capsys.readouterr().out
    assert "image any-cpu/openvino f32" in out
    assert "it ends too early" in out
    found = said(capsys, "--clear")
    assert (found["deleted"], found["entries"]) == (2, [])
    again = said(capsys, IMAGE, "--target", "openvino", "--clear")
    assert (again["deleted"], again["cache"]["state"]) == (0, "stored")


def test_a_model_that_gains_nothing_is_no_failure(capsys: pytest.CaptureFixture[str]) -> None:
    found = said(capsys, IMAGE, "--target", "onnxruntime")
    assert found["cache"]["state"] == "off"
    assert main(["build", IMAGE, "--target", "onnxruntime"]) == 0
    assert "not stored" in capsys.readouterr().out


def test_a_folder_that_others_can_write_into_is_an_error(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "cache").mkdir()
    (tmp_path / "cache").chmod(0o777)
    assert main(["build", IMAGE, "--target", "openvino"]) == 2
    err = capsys.readouterr().err
    assert "others can write" in err
    assert "chmod 700" in err


@pytest.mark.usefixtures("always")
def test_a_full_disk_is_an_error(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    said(capsys, "--clear", IMAGE, "--target", "onnxruntime")

    def full(*_: Any) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "fsync", full)
    assert main(["build", IMAGE, "--target", "openvino"]) == 5
    err = capsys.readouterr().err
    assert "not stored" in err
    assert "No space left" in err


def test_without_a_bundle_there_is_nothing_to_build(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["build"]) == 2
    assert "BUNDLE is missing" in capsys.readouterr().err
    assert main(["build", "--list"]) == 2
    assert "cannot be the cache folder: No such file" in capsys.readouterr().err


BUILD_SLOWLY = """
import sys
from pathlib import Path
import pytest
import slow_engine
from edgebm.cli.main import main
patch = pytest.MonkeyPatch()
slow = slow_engine.installed(patch)
wanted, sys.argv = sys.argv[1], ["edgebm", *sys.argv[2:]]
if wanted == "go":
    slow.go.set()
sys.exit(main())
"""


@pytest.fixture
def slow_bundle(tmp_path: Path) -> str:
    """The image model for a runtime whose builds take long."""
    bundle = read_bundle(IMAGE)
    (variant,) = (v for v in bundle.manifest.variants if v.runtime == "onnxruntime")
    manifest = replace(bundle.manifest, variants=(replace(variant, runtime=slow_engine.RUNTIME),))
    members = {name: bytes(data) for name, data in bundle.members.items() if name != MANIFEST}
    return str(write_bundle(tmp_path / "slow.edgebm", manifest, members))


def building(wanted: str, *args: str) -> subprocess.Popen[str]:
    tests = str(Path(slow_engine.__file__).parent)
    path = os.pathsep.join((tests, os.environ.get("PYTHONPATH", "")))
    return subprocess.Popen(
        [sys.executable, "-c", BUILD_SLOWLY, wanted, "build", *args],
        env={**os.environ, "PYTHONPATH": path},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def test_a_long_build_shows_how_far_it_is(slow_bundle: str) -> None:
    out, err = building("go", slow_bundle, "--json", "--workspace-mib", "64").communicate(
        timeout=60
    )
    assert json.loads(out)["runtime"] == slow_engine.RUNTIME
    assert err.startswith("build: tactics 1/4, ")


def test_ctrl_c_ends_a_long_build_and_leaves_nothing(slow_bundle: str, tmp_path: Path) -> None:
    child = building("wait", slow_bundle, "--time-limit", "600")
    assert child.stderr is not None
    assert child.stderr.readline().startswith("build: tactics")
    child.send_signal(signal.SIGINT)
    _, err = child.communicate(timeout=60)
    assert child.returncode == 130
    assert "interrupted" in err
    assert "Traceback" not in err
    assert [path for path in (tmp_path / "cache").rglob("*") if path.stat().st_size > 4096] == []


def test_the_limits_of_a_build_must_make_sense(slow_bundle: str) -> None:
    assert main(["build", slow_bundle, "--time-limit", "0"]) == 2
    assert main(["build", slow_bundle, "--workspace-mib", "0"]) == 2


@pytest.mark.skipif(find_spec("tensorrt") is not None, reason="TensorRT is here")
def test_a_runtime_that_is_missing_is_said_by_build_and_verify(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    bundle = read_bundle(IMAGE)
    (variant,) = (v for v in bundle.manifest.variants if v.runtime == "onnxruntime")
    manifest = replace(bundle.manifest, variants=(replace(variant, runtime="tensorrt"),))
    members = {name: bytes(data) for name, data in bundle.members.items() if name != MANIFEST}
    path = str(write_bundle(tmp_path / "trt.edgebm", manifest, members))
    for command in ("build", "verify"):
        assert main([command, path]) == 5
        out, err = capsys.readouterr()
        assert "not built" not in out + err
