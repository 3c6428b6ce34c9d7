from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from edgebm.cli import doctor, verify
from edgebm.cli.main import main
from edgebm.cli.run import read_arrays, split
from edgebm.cli.text import facts, file_size, table
from edgebm.cli.verify import Verdict, overall
from edgebm.errors import DataError
from edgebm.runtime.engines import CPU_RUNTIMES, RUNTIMES
from edgebm.spec import TensorSpec

DATA = Path(__file__).parents[2] / "device" / "data"
IMAGE = str(DATA / "image.edgebm")
X = TensorSpec("x", "float32", (1, 4))


@pytest.mark.parametrize("name", ["run", "bench", "build", "verify", "inspect", "doctor"])
def test_help_shows_an_example(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([name, "--help"]) == 0
    assert f"edgebm {name}" in capsys.readouterr().out.partition("Example")[2]


@pytest.mark.parametrize(
    ("shape", "calls", "stacked"),
    [((1, 4), 1, None), ((3, 4), 3, False), ((3, 1, 4), 3, True), ((4,), 1, None)],
)
def test_samples_are_found_by_rank_and_rows(
    shape: tuple[int, ...], calls: int, stacked: bool | None
) -> None:
    feeds, how = split({"x": np.zeros(shape, np.float32)}, [X])
    assert len(feeds) == calls
    assert how is stacked


def test_arrays_of_other_numbers_of_samples_are_refused() -> None:
    both = [X, TensorSpec("y", "float32", (1, 2))]
    for y in ((2, 2), (1, 2), (3, 1, 2), (0, 2)):
        with pytest.raises(DataError, match="same number of samples"):
            split({"x": np.zeros((3, 4)), "y": np.zeros(y)}, both)


def test_files_of_arrays(tmp_path: Path) -> None:
    x = np.ones((1, 4), np.float32)
    np.save(tmp_path / "x.npy", x)
    np.savez(tmp_path / "named.npz", x=x, labels=np.ones(1))
    np.savez(tmp_path / "unnamed.npz", x)
    for name in ("x.npy", "named.npz", "unnamed.npz"):
        assert list(read_arrays(tmp_path / name, [X])) == ["x"]
    with pytest.raises(DataError, match="one unnamed array"):
        read_arrays(tmp_path / "x.npy", [X, X])
    (tmp_path / "text.npz").write_text("hello")
    np.save(tmp_path / "objects.npy", np.array([{}]), allow_pickle=True)
    (tmp_path / "cut.npz").write_bytes((tmp_path / "named.npz").read_bytes()[:200])
    for name in ("text.npz", "objects.npy", "none.npz", "cut.npz"):
        with pytest.raises(DataError, match="cannot be read"):
            read_arrays(tmp_path / name, [X])


def test_run_prints_a_table_and_writes_what_the_session_answers(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    x = np.random.default_rng(1).normal(size=(2, 3, 4, 5)).astype(np.float32)
    np.savez(tmp_path / "x.npz", image=x)
    command = ["run", IMAGE, "-i", str(tmp_path / "x.npz"), "-o", str(tmp_path / "y.npz")]
    assert main(command) == 0
    assert "scores  float32  [2, 2]" in capsys.readouterr().out
    with np.load(tmp_path / "y.npz") as written:
        assert written["scores"].shape == (2, 2)
    assert main(command) == 2
    assert "exists" in capsys.readouterr().err
    assert main([*command, "--force", "--json"]) == 0
    result = json.loads(capsys.readouterr().out)
    assert np.shape(result["outputs"]["scores"]["values"]) == (2, 2)
    assert result["report"]["runtime"] == "openvino"


def test_wrong_inputs_end_with_2(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    np.savez(tmp_path / "x.npz", imgae=np.zeros((1, 3, 4, 5), np.float32))
    assert main(["run", IMAGE, "-i", str(tmp_path / "x.npz")]) == 2
    assert "'imgae' may mean 'image'" in capsys.readouterr().err
    assert main(["run", str(tmp_path / "none.edgebm"), "-i", str(tmp_path / "x.npz")]) == 2


def test_verify_runs_every_variant(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["verify", IMAGE, "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert [v["status"] for v in found["variants"]] == ["passed", "passed"]
    assert main(["verify", IMAGE, "--target", "onnxruntime"]) == 0
    assert "openvino" not in capsys.readouterr().out


def test_verify_ends_with_4_for_a_damaged_bundle(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "cut.edgebm"
    path.write_bytes(Path(IMAGE).read_bytes()[:-10])
    assert main(["verify", str(path)]) == 4
    assert "damaged" in capsys.readouterr().err


@pytest.mark.row(29)
def test_verify_ends_with_4_when_an_answer_is_wrong(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("edgebm.runtime.selftest.tolerance", lambda *_: -1.0)
    assert main(["verify", IMAGE]) == 4
    assert "failed" in capsys.readouterr().out


def test_verify_ends_with_4_or_5_when_nothing_could_run(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(verify, "missing_features", lambda _: ["warp"])
    assert main(["verify", IMAGE]) == 4
    one = Verdict("a", "f32", "skipped", "", {}, 5)
    passed = Verdict("b", "f32", "passed", "", {}, 0)
    failed = Verdict("c", "f32", "failed", "", {}, 4)
    assert overall([one]) == 5
    assert overall([one, passed]) == 0
    assert overall([one, passed, failed]) == 4


def test_inspect_needs_no_runtime(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["inspect", str(DATA / "tokens.edgebm"), "--members"]) == 0
    out = capsys.readouterr().out
    for text in ("tokens", "axis n", "1 to 4", "indices ids", "0 to 11", "manifest.json"):
        assert text in out
    assert main(["inspect", str(DATA / "echo.edgebm"), "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["manifest"]["states"] == [{"input": "h_in", "output": "h_out", "initial": ""}]


def test_doctor_finds_the_runtimes(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["doctor", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert [probe["runtime"] for probe in found["runtimes"]] == list(RUNTIMES)
    versions = {probe["runtime"]: probe["version"] for probe in found["runtimes"]}
    assert all(versions[runtime] for runtime in CPU_RUNTIMES)
    assert found["machine"]["threads"] >= 1
    assert {"clock_mhz", "temperature_c", "throttled"} <= set(found["machine"])
    # What is not usable here says why, and what to do.
    for probe in found["runtimes"]:
        assert bool(probe["version"]) != bool(probe["why"] and probe["hint"]), probe


@pytest.mark.row(60, partly=True)
@pytest.mark.parametrize(
    ("code", "words"),
    [
        ("import os, signal; os.kill(os.getpid(), signal.SIGILL)", "dies of SIGILL"),
        ("raise SystemExit(3)", "ends with code 3"),
        ("print('no json')", "ends with code 0"),
        ("import time; time.sleep(60)", "takes more than"),
    ],
)
def test_a_runtime_that_crashes_does_not_take_doctor_with_it(
    code: str, words: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    if "sleep" in code:
        monkeypatch.setattr(doctor, "_TIMEOUT_S", 0.2)
    found = doctor.probe("openvino", code)
    assert not found.loads
    assert words in found.why


def test_doctor_ends_with_5_without_any_runtime(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(doctor, "probe", lambda name: doctor.Probe(name, why="not installed"))
    assert main(["doctor"]) == 5
    assert "not installed" in capsys.readouterr().out


@pytest.mark.row(61)
def test_doctor_says_what_makes_a_machine_unsteady() -> None:
    machine: dict[str, Any] = {
        "governor": "powersave",
        "clock_limit_mhz": 1200.0,
        "clock_max_mhz": 1800.0,
        "throttled": ["soc is at 84 C"],
        "cgroup_cpus": 1.5,
        "arch": "x86_64",
        "features": ["avx2"],
    }
    notes = " ".join(doctor.advice(machine))
    assert "powersave" in notes
    assert "limited to 1200 of 1800 MHz" in notes
    assert "soc is at 84 C" in notes
    assert "1.5 CPUs" in notes
    assert "VNNI" in notes
    quiet = {
        "governor": "",
        "clock_limit_mhz": None,
        "clock_max_mhz": None,
        "throttled": [],
        "cgroup_cpus": None,
        "arch": "aarch64",
        "features": [],
    }
    assert doctor.advice(quiet) == []


def test_tables_are_aligned() -> None:
    assert table(("a", "bb"), [("long", 1)]) == "a     bb\nlong  1"
    assert facts({"a": 1, "long": ""}) == "a     1\nlong"
    assert file_size(999) == "1.0 kB"
    assert file_size(1_250_000) == "1.25 MB"


def test_run_never_replaces_what_it_reads(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    source = tmp_path / "x.npz"
    np.savez(source, image=np.zeros((1, 3, 4, 5), np.float32))
    before = source.read_bytes()
    assert main(["run", IMAGE, "-i", str(source), "-o", str(source), "--force"]) == 2
    assert "is an input of this command" in capsys.readouterr().err
    assert source.read_bytes() == before


@pytest.mark.parametrize("name", ["text.npz", "objects.npz", "missing.npz"])
def test_nobody_is_told_to_trust_a_pickle(name: str, tmp_path: Path) -> None:
    (tmp_path / "text.npz").write_text("no arrays")
    np.savez(tmp_path / "objects.npz", x=np.array([object()]))
    with pytest.raises(DataError) as caught:
        read_arrays(tmp_path / name, [X])
    assert "pickle" not in str(caught.value)
    assert "Errno" not in str(caught.value)
    assert "np.savez" in caught.value.hint


def test_a_bundle_that_nothing_proves_says_so_on_stderr(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(verify, "missing_features", lambda variant: ["neon"])
    assert main(["verify", IMAGE]) == 4
    err = capsys.readouterr().err
    assert "error: no variant can run here" in err
    assert "hint:" in err
