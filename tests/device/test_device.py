"""What a device must do, with numpy, click and one runtime: the same file for every runtime."""

from __future__ import annotations

import importlib.util
import json
import subprocess
import sys
import threading
from pathlib import Path

import numpy as np
import pytest

import edgebm
from edgebm.errors import BackendUnavailable, BundleCorrupt, BundleIncompatible
from edgebm.runtime.engines import CPU_RUNTIMES

DATA = Path(__file__).parent / "data"
NAMES = sorted(path.stem for path in DATA.glob("*.edgebm"))
INSTALLED = [name for name in CPU_RUNTIMES if importlib.util.find_spec(name)]
MISSING = [name for name in CPU_RUNTIMES if name not in INSTALLED]


def cli(*args: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "edgebm", *args], capture_output=True, text=True, check=False
    )


def test_at_least_one_runtime_is_installed() -> None:
    assert INSTALLED


@pytest.mark.parametrize("runtime", INSTALLED)
@pytest.mark.parametrize("name", NAMES)
def test_every_bundle_loads_and_passes_its_self_test(name: str, runtime: str) -> None:
    with edgebm.load(DATA / f"{name}.edgebm", target=runtime) as session:
        report = session.report()
    assert report["runtime"] == runtime
    assert report["degraded"] is False
    assert set(report["self_test"]) == {spec.name for spec in session.outputs}
    assert max(report["self_test"].values()) <= 1e-4


@pytest.mark.parametrize("runtime", INSTALLED)
def test_every_dtype_comes_back_as_itself(runtime: str) -> None:
    feeds = {
        "half": np.array([1, -2], np.float16),
        "byte": np.array([1, 2], np.uint8),
        "flag": np.array([True, False]),
        "scalar": np.array(0.5, np.float32),
        "wide": np.array([1e-3, 2]),
    }
    with edgebm.load(DATA / "dtypes.edgebm", target=runtime) as session:
        out = session.run(feeds)
    np.testing.assert_array_equal(out["flag2"], [False, True])
    for name in ("half", "byte", "scalar", "wide"):
        assert out[f"{name}2"].dtype == feeds[name].dtype
        np.testing.assert_allclose(out[f"{name}2"], feeds[name] + feeds[name], rtol=1e-6)


@pytest.mark.parametrize("runtime", INSTALLED)
def test_free_axes_and_outputs_whose_size_depends_on_values(runtime: str) -> None:
    with edgebm.load(DATA / "tokens.edgebm", target=runtime) as session:
        for shape in ((1, 4), (2, 8), (4, 1), (1, 4)):
            ids, mask = np.zeros(shape, np.int64), np.zeros(shape, np.int64)
            mask[0, :1] = 1
            out = session.run(ids=ids, mask=mask)
            assert out["pooled"].shape == (shape[0], 3)
            np.testing.assert_array_equal(out["used"], [[0], [0]])
            mask[:] = 1
            assert session.run(ids=ids, mask=mask)["used"].shape == (2, ids.size)


@pytest.mark.row(44)
@pytest.mark.parametrize("runtime", INSTALLED)
def test_threads_get_their_own_answers(runtime: str) -> None:
    wrong: list[int] = []

    def work(seed: int) -> None:
        x = np.full((1, 4), seed, np.float32)
        h = np.full((1, 4), 1, np.float32)
        for _ in range(200):
            out = session.run(x=x, h_in=h)
            if out["h_out"][0, 0] != seed + 1 or out["y"][0, 3] != seed * (seed + 1):
                wrong.append(seed)

    with edgebm.load(DATA / "echo.edgebm", target=runtime) as session:
        workers = [threading.Thread(target=work, args=(seed,)) for seed in range(8)]
        for worker in workers:
            worker.start()
        for worker in workers:
            worker.join()
    assert wrong == []


@pytest.mark.row(56)
@pytest.mark.parametrize("runtime", MISSING)
def test_a_missing_runtime_is_an_error_with_the_pip_command(runtime: str) -> None:
    with pytest.raises(BackendUnavailable, match="not installed") as caught:
        edgebm.load(DATA / "image.edgebm", target=runtime)
    assert f"pip install 'edgebm[{runtime}]'" in caught.value.hint


@pytest.mark.row(56)
@pytest.mark.parametrize("runtime", MISSING)
def test_only_a_list_falls_back_and_says_so(runtime: str) -> None:
    with edgebm.load(DATA / "image.edgebm", target=[runtime, INSTALLED[0]]) as session:
        report = session.report()
    assert report["degraded"] is True
    assert "not installed" in report["why"]
    assert report["runtime"] == INSTALLED[0]


def test_a_name_the_bundle_has_not_lists_what_it_has() -> None:
    with pytest.raises(BundleIncompatible, match="any-cpu/onnxruntime"):
        edgebm.load(DATA / "image.edgebm", target="tensorrt")


@pytest.mark.row(2)
def test_a_damaged_bundle_is_refused(tmp_path: Path) -> None:
    data = bytearray((DATA / "image.edgebm").read_bytes())
    data[len(data) // 2] ^= 1
    path = tmp_path / "damaged.edgebm"
    path.write_bytes(data)
    with pytest.raises(BundleCorrupt):
        edgebm.load(path)


def test_the_commands_of_a_device_work(tmp_path: Path) -> None:
    bundle = str(DATA / "image.edgebm")
    x = np.random.default_rng(3).normal(size=(3, 3, 4, 5)).astype(np.float32)
    np.savez(tmp_path / "x.npz", image=x)
    target = ["--target", INSTALLED[0]]
    out = tmp_path / "y.npz"
    done = cli("run", bundle, "-i", str(tmp_path / "x.npz"), "-o", str(out), "--json", *target)
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["calls"] == 3
    with np.load(out) as written, edgebm.load(bundle, target=INSTALLED[0]) as session:
        for i in range(3):
            expected = session.run(x[i : i + 1])["scores"][0]
            np.testing.assert_array_equal(written["scores"][i], expected)
    for command in (
        ["bench", bundle, "--seconds", "0.1", "--require", "max=1000s", *target],
        ["verify", bundle, *target],
        ["inspect", bundle],
        ["doctor"],
    ):
        done = cli(*command)
        assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("runtime", INSTALLED)
def test_nothing_is_written_or_reported_when_a_bundle_is_loaded(
    runtime: str, tmp_path: Path
) -> None:
    code = (
        "import socket, sys, edgebm\n"
        "def refuse(*args, **kwargs): raise AssertionError('network')\n"
        "socket.socket = socket.create_connection = refuse\n"
        f"edgebm.load({str(DATA / 'image.edgebm')!r}, target={runtime!r}).close()\n"
        "assert 'openvino_telemetry' not in sys.modules\n"
    )
    environment = {
        "HOME": str(tmp_path),
        "PATH": "/usr/bin:/bin",
        "PYTHONPATH": ":".join(sys.path),
    }
    done = subprocess.run(
        [sys.executable, "-B", "-c", code],
        cwd=tmp_path, env=environment, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert list(tmp_path.iterdir()) == []


def test_loading_needs_nothing_beyond_numpy_and_the_runtime() -> None:
    code = (
        "import sys, edgebm\n"
        f"edgebm.load({str(DATA / 'image.edgebm')!r}, target={INSTALLED[0]!r}).close()\n"
        "print(*sorted({name.partition('.')[0] for name in sys.modules}))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    host = {"torch", "onnx", "onnx_ir", "pydantic", "yaml", "rich", "jinja2", "matplotlib"}
    assert not host & set(done.stdout.split())
