from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import students
from graphs import outputs

pytest.importorskip("torch", reason="torch is not installed")

import torch

from edgebm.cli.main import main
from edgebm.errors import UsageError
from edgebm.importers import import_model
from edgebm.ir.model import Model
from edgebm.verbs.distill import distill

torch.set_num_threads(1)
STUDENT = """
import torch
from torch import nn

def student():
    torch.manual_seed(0)
    net = nn.Sequential(nn.Flatten(), nn.Linear(64, 24), nn.Tanh(), nn.Linear(24, 10)).eval()
    free = {"input": {0: torch.export.Dim("n")}}
    return net, (torch.zeros(2, 1, 8, 8),), free
"""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    teacher = students.cnn(16, 0)
    (tmp_path / "teacher.onnx").write_bytes(teacher.to_bytes())
    (tmp_path / "student.onnx").write_bytes(students.cnn(8, 1).to_bytes())
    (tmp_path / "other.onnx").write_bytes(students.gru(4, 0).to_bytes())
    (tmp_path / "small.py").write_text(STUDENT)
    x = np.concatenate([feeds["x"] for feeds in students.digits(150).feeds()])
    labels = outputs(teacher, {"x": x})["y"].argmax(-1)
    np.savez(tmp_path / "d.npz", x=x[:100])
    np.savez(tmp_path / "e.npz", x=x[100:], labels=labels[100:])
    return tmp_path


def arguments(folder: Path, student: str = "student.onnx", *more: str) -> list[str]:
    given = {"--teacher": "teacher.onnx", "--student": student, "-d": "d.npz", "-o": "s.onnx"}
    command = [word for key, file in given.items() for word in (key, str(folder / file))]
    return ["distill", *command, "--batch", "32", "--rate", "0.01", *more]


def test_a_student_is_taught_and_written(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    more = ("-e", str(folder / "e.npz"), "--steps", "150", "--precision", "f32")
    assert main(arguments(folder, "student.onnx", *more)) == 0
    printed = capsys.readouterr()
    assert printed.out == f"{folder / 's.onnx'}\n"
    assert "150 steps: loss" in printed.err
    assert "top1" in printed.err
    assert "the teacher has 100" in printed.err
    x = {"x": np.ones((3, 1, 8, 8), "f4")}
    assert outputs(Model.load(folder / "s.onnx"), x)["y"].shape == (3, 10)
    assert not list(folder.glob("*.checkpoint"))
    assert main(arguments(folder)) == 2
    assert "--force" in capsys.readouterr().err


def test_a_torch_student_of_another_architecture(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    command = arguments(folder, "small.py:student", "--steps", "100", "--json")
    assert main([*command, "--loss", "features=0", "--augment", "flip"]) == 0
    printed = json.loads(capsys.readouterr().out)
    assert printed["steps"] == printed["planned_steps"] == 100
    assert printed["loss"]["after"] < 0.9 * printed["loss"]["before"]
    assert printed["score"]["metric"] == "sqnr"
    assert printed["score"]["after"] > printed["score"]["before"]
    assert printed["score"]["teacher"] is None
    assert printed["params"]["student"] < printed["params"]["teacher"] + 3000
    assert "the student's input input stands for the teacher's x" in printed["notes"]
    taught = import_model(folder / "s.onnx").graph.graph
    assert [v.name for v in (*taught.inputs, *taught.outputs)] == ["x", "y"]


def test_what_does_not_match_is_told_before_training(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(arguments(folder, "other.onnx", "--json")) == 2
    printed = capsys.readouterr()
    assert "input x: float32[N, T, 3] where the teacher has x: float32[N, 1, 8, 8]" in printed.err
    assert "output y: float32[N, 4] where the teacher has y: float32[N, 10]" in printed.err
    assert len(json.loads(printed.out)["error"]["details"]["faults"]) == 2
    assert not (folder / "s.onnx").exists()


def test_all_wrong_arguments_at_once(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    command = [
        "distill", "--teacher", "none.onnx", "--student", str(folder), "-d", "none.npz",
        "-o", str(folder), "--minutes", "-1", "--batch", "0", "--loss", "cosine=1",
    ]  # fmt: skip
    assert main(command) == 2
    printed = capsys.readouterr().err
    for fault in (
        "--teacher none.onnx", "--student", "--data none.npz", "is a folder",
        "--minutes -1 must be more than 0", "--batch 0", "--loss cosine=1",
    ):  # fmt: skip
        assert fault in printed


def test_the_library_names_every_wrong_field() -> None:
    with pytest.raises(UsageError) as caught:
        distill("t.onnx", "s.onnx", "d.npz", minutes=-1.0, tempo=3, losses={"outputs": -1.0})
    for fault in ("minutes: ", "tempo: Unexpected keyword argument", "losses.outputs: "):
        assert fault in str(caught.value)


def test_a_result_without_a_file(folder: Path) -> None:
    made = distill(
        folder / "teacher.onnx", folder / "student.onnx", folder / "d.npz", steps=3, device="cpu"
    )
    assert made.path is None
    assert made.report["steps"] == 3
    json.dumps(made.report)
    with pytest.raises(UsageError, match="resume goes on from a checkpoint"):
        distill("t.onnx", "s.onnx", "d.npz", resume=True)


def test_ctrl_c_and_resume(folder: Path) -> None:
    root = Path(students.__file__).parents[1]
    environment = {**os.environ, "PYTHONPATH": str(root), "OMP_NUM_THREADS": "1"}
    # Processes started in the background may ignore Ctrl-C, and hand that on.
    command = [sys.executable, "-c",
               "import signal, sys; signal.signal(signal.SIGINT, signal.default_int_handler);"
               "from edgebm.cli.main import main; sys.exit(main(sys.argv[1:]))",
               *arguments(folder, "student.onnx", "--steps", "100000")]  # fmt: skip
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment
    ) as child:
        assert child.stderr is not None
        for line in child.stderr:
            if line.startswith("distill ..."):
                child.send_signal(signal.SIGINT)
                break
        said = child.stderr.read()
    assert child.returncode == 130
    assert "run the same again with --resume" in said
    assert (folder / "s.onnx.checkpoint").exists()
    assert not (folder / "s.onnx").exists()
    assert main(arguments(folder, "student.onnx", "--steps", "100000")) == 2
    # Another schedule is another training.
    assert main(arguments(folder, "student.onnx", "--steps", "4", "--resume")) == 2
    assert main(arguments(folder, "student.onnx", "--steps", "4", "--force")) == 0
    assert not (folder / "s.onnx.checkpoint").exists()


def test_torchrun(folder: Path) -> None:
    root = Path(students.__file__).parents[1]
    environment = {**os.environ, "PYTHONPATH": str(root), "OMP_NUM_THREADS": "1"}
    launched = [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node", "2",
                "--standalone", "-m", "edgebm"]  # fmt: skip
    more = ("--steps", "10", "--precision", "f32", "--json")
    done = subprocess.run(
        [*launched, *arguments(folder, "student.onnx", *more)],
        capture_output=True, text=True, env=environment, check=False, timeout=200,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    together = json.loads(done.stdout)  # once, of process 0
    first = Model.load(folder / "s.onnx")
    assert main(arguments(folder, "student.onnx", *more, "--force")) == 0
    alone = Model.load(folder / "s.onnx")
    assert together["path"] == str(folder / "s.onnx")
    x = {"x": next(iter(students.digits(1, seed=5).feeds()))["x"]}
    np.testing.assert_allclose(
        outputs(first, x)["y"], outputs(alone, x)["y"], rtol=1e-3, atol=1e-4
    )
