"""Runs that are killed, interrupted or short of time: nothing is lost, nothing measured twice."""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import sys
import time
import zipfile
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from graphs import random_model
from tiny_models import X

import edgebm
from edgebm import package
from edgebm.cli.main import main
from edgebm.ir.model import Model
from edgebm.runtime.cpu import arch
from edgebm.search.found import Found

LABELS = np.arange(len(X)) % 4
GIVEN = {"m.onnx", "d.npz", "small.yaml", "judge.py"}
MEASURED = {"trial", "turn", "score"}
# The small ones go first: whatever this machine is fast at, an integer model is scored.
RECIPE = """
version: 1
steps:
  - kind: quantize_weights
  - kind: quantize_activations
precisions: [f32]
prefer: size
"""
# Without products that take their range at run time, whose layers are not compared.
ONE_RUNTIME = f"""
name: host
description: this machine, with one runtime
arch: {arch()}
runtimes: [openvino]
"""
# Scores the model, tells so, and waits when it is asked to.
SCORE = """
import time
from pathlib import Path
import numpy as np
HERE = Path(__file__).parent

def score(run):
    with (HERE / "scored").open("a") as log:
        log.write("x")
    asked = HERE / f"wait{len((HERE / 'scored').read_text())}"
    while asked.exists():
        (HERE / "waiting").touch()
        time.sleep(0.02)
    return float(np.mean([run({"x": np.full((1, 8), k, np.float32)})["y"].sum() for k in (1, 2)]))
"""

# Two seconds for each candidate, and the float model is one.
SLOW = """
import time
import numpy as np

def score(run):
    found = []
    for _ in range(100):
        time.sleep(0.02)
        found.append(run({"x": np.ones((1, 8), np.float32)})["y"].sum())
    return float(np.mean(found))
"""


def model() -> Model:
    return random_model(
        "g (float[1,8] x) => (float[1,4] y) { h = MatMul(x, w)\n i = MatMul(h, v)\n"
        " r = Relu(i)\n y = MatMul(r, u) }",
        w=(8, 96),
        v=(96, 96),
        u=(96, 4),
    )


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    (tmp_path / "m.onnx").write_bytes(model().to_bytes())
    (tmp_path / "small.yaml").write_text(RECIPE)
    np.savez(tmp_path / "d.npz", x=X, labels=LABELS)
    (tmp_path / "judge.py").write_text(SCORE)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def command(*more: str) -> list[str]:
    fixed = ["-r", "small.yaml", "--threads", "1", "--measure-seconds", "0.3"]
    return ["compress", "m.onnx", "-d", "d.npz", *fixed, "-o", "out.edgebm", *more]


def compress(**more: Any) -> edgebm.Result:
    """The same from Python."""
    fixed = {"data": "d.npz", "recipe": "small.yaml", "out": "out.edgebm", "threads": 1}
    return edgebm.compress("m.onnx", **{"measure_s": 0.3, **fixed, **more})


def start(*more: str) -> subprocess.Popen[str]:
    """The command in a process of its own."""
    return subprocess.Popen(
        [sys.executable, "-m", "edgebm", *command(*more)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def ended_when(ready: Callable[[], bool], number: signal.Signals, *more: str) -> tuple[int, str]:
    """Send the signal when `ready` says so; the exit code and what stood on stderr."""
    process = start(*more)
    limit = time.monotonic() + 120
    while not ready() and process.poll() is None and time.monotonic() < limit:
        time.sleep(0.005)
    process.send_signal(number)
    _, err = process.communicate(timeout=120)
    return process.returncode, err


def entries(path: Path) -> list[dict[str, Any]]:
    """What the journal holds, but for seconds; an entry in progress is not there yet."""
    if not path.exists():
        return []
    whole = path.read_bytes().rpartition(b"\n")[0].splitlines()
    return [e for e in map(json.loads, whole[1:]) if e["kind"] in MEASURED]


def report(path: Path) -> dict[str, Any]:
    with zipfile.ZipFile(path) as bundle:
        stored: dict[str, Any] = json.loads(bundle.read("report.json"))
        return stored


def once(path: Path) -> bool:
    """Whether every measurement was made once."""
    return max(Counter(e["key"] for e in entries(path)).values()) == 1


def test_equal_measurements_make_equal_bundles(folder: Path, capsys: Any) -> None:
    assert main(command("--measurements", "m.json")) == 0
    first, kept = Path("out.edgebm").read_bytes(), Path("m.json").read_bytes()
    capsys.readouterr()
    assert main(command("--measurements", "m.json", "--force")) == 0
    assert Path("out.edgebm").read_bytes() == first
    assert Path("m.json").read_bytes() == kept
    err = capsys.readouterr().err
    made = entries(Path("m.json"))
    assert {e["kind"] for e in made} == MEASURED
    assert "measurements were taken from m.json, 0 were made" in err
    assert not Path("out.edgebm.resume").exists()
    assert once(Path("m.json"))
    assert report(Path("out.edgebm"))["interrupted"] is False


@pytest.mark.row(69)
def test_a_killed_run_goes_on_and_measures_nothing_twice(folder: Path) -> None:
    journal = Path("m.json")
    by_chance = random.Random(os.getpid()).randint(7, 14)
    for size in (1, 4, by_chance):
        code, _ = ended_when(
            lambda size=size: len(entries(journal)) >= size,  # type: ignore[misc]
            signal.SIGKILL,
            *("--measurements", "m.json"),
        )
        assert code == -signal.SIGKILL
        assert not Path("out.edgebm").exists()
        assert len(entries(journal)) >= size
    known = journal.read_bytes().rpartition(b"\n")[0]
    assert main(command("--measurements", "m.json")) == 0
    assert journal.read_bytes().startswith(known)
    assert once(journal)
    first = Path("out.edgebm").read_bytes()
    assert main(command("--measurements", "m.json", "--force")) == 0
    assert Path("out.edgebm").read_bytes() == first
    assert not list(Path().glob(".*")), "no half-written file"


def test_the_journal_of_a_killed_run_is_found_and_then_removed(folder: Path, capsys: Any) -> None:
    resume = Path("out.edgebm.resume")
    code, _ = ended_when(lambda: len(entries(resume)) >= 3, signal.SIGKILL)
    assert code == -signal.SIGKILL
    count = len(entries(resume))
    result = compress()
    assert any(
        f"{count} measurements were taken from out.edgebm.resume" in n for n in result.notes
    )
    assert {p.name for p in folder.iterdir()} == GIVEN | {"out.edgebm"}


def test_measurements_of_another_model_are_not_taken(folder: Path) -> None:
    assert main(command("--measurements", "m.json")) == 0
    before = len(entries(Path("m.json")))
    other = compress(data=X + 1, measurements="m.json", out=None)
    assert not other.notes, "nothing fits: nothing is reused"
    assert len(entries(Path("m.json"))) > before


@pytest.mark.row(69)
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_an_interruption_leaves_the_best_so_far(folder: Path, number: signal.Signals) -> None:
    out, resume = Path("out.edgebm"), Path("out.edgebm.resume")
    Path("wait2").touch()  # the float model is scored by then, the first candidate is not
    judged = ("-e", "judge.py:score", "--max-drop", "1000")
    code, err = ended_when(Path("waiting").exists, number, *judged)
    assert code == 130, err
    found = report(out)
    assert found["interrupted"] is True
    assert found["verdict"].startswith("Interrupted, the best by then: ")
    assert "interrupted; not done, or not to its end: evaluate" in " ".join(found["warnings"])
    assert "what was measured is kept in out.edgebm.resume" in err
    assert "warning: host: interrupted" in err
    assert found["after"]["precision"] == "f32"
    assert "not_evaluated" in {each["status"] for each in found["candidates"]}
    edgebm.load(out).close()

    kept = entries(resume)
    assert Counter(e["kind"] for e in kept)["score"] == 1
    Path("wait2").unlink()
    assert main(command(*judged)) == 0, "the bundle of the interrupted run is replaced"
    assert len(Path("scored").read_text()) == 3, "the float model is not scored again"
    assert report(out)["interrupted"] is False
    assert report(out)["after"]["precision"] != "f32"
    assert not resume.exists()
    assert main(command(*judged)) == 2, "a finished bundle is not replaced"


@pytest.mark.row(69)
def test_an_interruption_before_there_is_anything_to_show(folder: Path) -> None:
    resume = Path("out.edgebm.resume")
    code, err = ended_when(lambda: len(entries(resume)) >= 1, signal.SIGINT)
    assert code == 130
    assert not Path("out.edgebm").exists()
    assert entries(resume)
    assert "what was measured is kept in out.edgebm.resume" in err
    assert err.rstrip().endswith("interrupted")
    assert "failed" not in err


class At:
    """A progress that interrupts the run at a step, as Ctrl-C would."""

    def __init__(self, step: str) -> None:
        self.step, self.told = step, 0

    def __call__(self, step: str, done: int, total: int) -> None:
        if step.startswith(self.step) and not self.told:
            self.told = 1
            raise KeyboardInterrupt


@pytest.fixture(scope="module")
def known(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    """Everything that a run measures, for tests of what comes after."""
    place = tmp_path_factory.mktemp("known")
    (place / "small.yaml").write_text(RECIPE)
    (place / "one.yaml").write_text(ONE_RUNTIME)
    more = {"recipe": place / "small.yaml", "measure_s": 0.3, "threads": 1}
    more["target"] = place / "one.yaml"
    given = {"data": {"x": X, "labels": LABELS}, "measurements": place / "m.json"}
    edgebm.compress(model(), **given, **more)  # type: ignore[arg-type]
    return (place / "m.json").read_bytes()


@pytest.mark.parametrize("step", ["measure p99", "compare layers"])
def test_an_interruption_after_the_choice_costs_only_what_was_left(
    folder: Path, known: bytes, step: str
) -> None:
    Path("m.json").write_bytes(known)
    Path("one.yaml").write_text(ONE_RUNTIME)
    result = compress(progress=At(step), measurements="m.json", target="one.yaml", max_drop=100)
    assert result.interrupted
    assert result.exit_code == 130
    assert result.report["after"]["metric"] is not None
    assert step in result.report["warnings"][-1]
    edgebm.load("out.edgebm").close()


def test_an_interruption_before_anything_is_measured_leaves_nothing(folder: Path) -> None:
    with pytest.raises(KeyboardInterrupt):
        compress(progress=At("quantize_weights"))
    assert {p.name for p in folder.iterdir()} == GIVEN


@pytest.fixture
def interrupted_writes(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Interrupts so many writings of a bundle as the list has members."""
    left: list[int] = []
    write = package.write_result

    def late(job: Any, found: list[Found], out: Path, **more: Any) -> Any:
        done = write(job, found, out, **more)
        if left:
            left.pop()
            raise KeyboardInterrupt
        return done

    monkeypatch.setattr(package, "write_result", late)
    return left


@pytest.mark.row(69)
def test_an_interruption_while_the_bundle_is_written(
    folder: Path, known: bytes, interrupted_writes: list[int]
) -> None:
    Path("m.json").write_bytes(known)
    interrupted_writes.append(1)
    result = compress(measurements="m.json")
    assert result.interrupted
    written = report(Path("out.edgebm"))
    assert written["interrupted"] is True
    assert written["verdict"].startswith("Interrupted, ")
    assert "nothing was left out" in written["warnings"][-1]
    edgebm.load("out.edgebm").close()


@pytest.mark.row(69)
def test_a_second_interruption_while_it_is_written_tears_nothing(
    folder: Path, known: bytes, interrupted_writes: list[int]
) -> None:
    Path("m.json").write_bytes(known)
    interrupted_writes += [1, 1]
    with pytest.raises(KeyboardInterrupt):
        compress(measurements="m.json")
    edgebm.load("out.edgebm").close()
    assert Path("m.json").read_bytes().startswith(known)


@pytest.mark.parametrize("budget_s", [1e-9, 1.0])
def test_without_time_the_float_model_is_written(folder: Path, budget_s: float) -> None:
    result = compress(budget_s=budget_s)
    assert result.exit_code == 0
    assert not result.interrupted
    assert any("--budget did not suffice" in each for each in result.report["warnings"])
    assert result.report["verdict"].startswith("Out of time, the best by then: ")
    after = result.report["after"]
    assert after["precision"] == "f32"
    assert after["metric"] is None
    with edgebm.load("out.edgebm") as session:
        assert session.run({"x": X[:1]})["y"].shape == (1, 4)


def test_a_run_out_of_time_goes_on_when_there_is_more(folder: Path) -> None:
    Path("slow.py").write_text(SLOW)
    judged = ("-e", "slow.py:score", "--max-drop", "1000")
    assert main(command(*judged, "--budget", "4.5s")) == 0
    unfinished = report(Path("out.edgebm"))
    known = len(entries(Path("out.edgebm.resume")))
    assert main(command(*judged, "--budget", "1h")) == 0
    finished = report(Path("out.edgebm"))
    assert unfinished["verdict"].startswith("Out of time")
    assert not finished["verdict"].startswith("Out of time")
    assert known
    assert not Path("out.edgebm.resume").exists()


def test_measuring_does_not_eat_the_time_of_evaluating(folder: Path) -> None:
    result = compress(measure_s=1000, budget_s=25, max_drop=100)
    assert result.report["after"]["metric"] is not None


def test_scores_of_what_cannot_be_told_from_others_are_not_kept(folder: Path) -> None:
    """A closure holds values that its source does not show."""
    bonus = 1.0
    asked: list[float] = []

    def judge(run: Callable[..., Any]) -> float:
        asked.append(bonus)
        return float(run({"x": X[:1]})["y"].sum())

    arguments = {"eval": judge, "max_drop": 1000.0, "measurements": "m.json", "out": None}
    first = compress(**arguments)
    count = len(asked)
    compress(**arguments)
    assert len(asked) == 2 * count
    assert any("are not kept" in note for note in first.notes)
    assert "score" not in {e["kind"] for e in entries(Path("m.json"))}
