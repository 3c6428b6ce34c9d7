from __future__ import annotations

import json
import os
import resource
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="torch is not installed")

import train_worker  # noqa: E402

from edgebm.errors import UsageError  # noqa: E402
from edgebm.grad.checkpoint import Checkpoint, State  # noqa: E402
from edgebm.grad.identity import Kept  # noqa: E402

torch.set_num_threads(1)
STEPS = 14
ROOT = Path(train_worker.__file__).parents[1]


def assert_equal(found: dict, wanted: dict) -> None:
    assert found.keys() == wanted.keys()
    for label, array in wanted.items():
        np.testing.assert_array_equal(found[label], array, err_msg=label)


def loaded(path: Path, **identity) -> State | None:
    held = Checkpoint(path, identity, resume=True)
    return held.load(held.content())


def interrupted_at(step: int):
    """Progress that sends Ctrl-C to this process while a step is reported."""

    def progress(done: int, total: int) -> None:
        if done == step:
            signal.raise_signal(signal.SIGINT)

    return progress


@pytest.mark.parametrize("family", ["cnn", "gru", "bert"])
def test_a_resumed_run_is_the_run_that_was_not_interrupted(family: str, tmp_path: Path) -> None:
    whole, _ = train_worker.trained(family, STEPS)
    path = tmp_path / "student.checkpoint"
    for stop in (4, 9):
        kept = Kept(path, resume=True)
        message = rf"interrupted after step {stop} of {STEPS}; .*--resume"
        with pytest.raises(KeyboardInterrupt, match=message):
            train_worker.trained(family, STEPS, kept, interrupted_at(stop))
    parts, found = train_worker.trained(family, STEPS, Kept(path, resume=True))
    assert found.fitted.resumed_at == 9
    assert found.fitted.steps == STEPS
    assert_equal(parts, whole)
    # What is complete stays so.
    again, found = train_worker.trained(family, STEPS, Kept(path, resume=True))
    assert found.fitted.resumed_at == STEPS
    assert_equal(again, whole)


def test_without_resume_it_begins_anew(tmp_path: Path) -> None:
    path = tmp_path / "c"
    with pytest.raises(KeyboardInterrupt):
        train_worker.trained("gru", STEPS, Kept(path), interrupted_at(3))
    assert path.exists()
    _, found = train_worker.trained("gru", STEPS, Kept(path))
    assert found.fitted.resumed_at == 0


def test_a_checkpoint_of_another_training_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "c"
    train_worker.trained("gru", 3, Kept(path))
    with pytest.raises(UsageError, match="another training; what differs: .*schedule"):
        train_worker.trained("gru", 4, Kept(path, resume=True))
    with pytest.raises(UsageError, match=r"what differs: .*samples, schedule, student, teacher"):
        train_worker.trained("bert", 4, Kept(path, resume=True))


def test_names_of_their_own_keep_trainings_apart(tmp_path: Path) -> None:
    for family in ("gru", "bert"):
        train_worker.trained(family, 3, Kept(tmp_path / "c", own_name=True))
    assert len(list(tmp_path.iterdir())) == 2
    _, found = train_worker.trained("gru", 3, Kept(tmp_path / "c", own_name=True))
    assert found.fitted.resumed_at == 3


@pytest.mark.parametrize("content", [b"", b"PK\x03\x04 half", b"\x93NUMPY", None])
def test_a_damaged_checkpoint_is_refused(content: bytes | None, tmp_path: Path) -> None:
    path = tmp_path / "c"
    Checkpoint(path, {}).save(State({"a": np.arange(9000.0)}, {"step": 1}))
    whole = path.read_bytes()
    path.write_bytes(whole[: len(whole) // 2] if content is None else content)
    with pytest.raises(UsageError, match="no checkpoint"):
        loaded(path)


def test_a_checkpoint_of_a_later_format_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "c"
    meta = np.frombuffer(json.dumps({"format": 99}).encode(), np.uint8)
    with path.open("wb") as file:
        np.savez(file, meta=meta)
    with pytest.raises(UsageError, match="another version"):
        loaded(path)


def test_what_was_saved_comes_back(tmp_path: Path) -> None:
    path = tmp_path / "c"
    arrays = {"module/w.1": np.arange(6.0, dtype="f4").reshape(2, 3), "best/w": np.array(3)}
    Checkpoint(path, {"a": (1, 2)}).save(State(arrays, {"best": 1.5}))
    state = loaded(path, a=(1, 2))
    assert state is not None
    assert state.meta["best"] == 1.5
    assert state.under("module").keys() == {"w.1"}
    np.testing.assert_array_equal(state.arrays["module/w.1"], arrays["module/w.1"])
    Checkpoint(path, {}).remove()
    assert list(tmp_path.iterdir()) == []


def test_a_full_disk_leaves_the_old_checkpoint(tmp_path: Path) -> None:
    path = tmp_path / "c"
    with pytest.raises(KeyboardInterrupt):
        train_worker.trained("gru", STEPS, Kept(path, resume=True), interrupted_at(4))
    old = path.read_bytes()
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (2000, limits[1]))
    try:
        with pytest.raises(UsageError, match="the checkpoint .* cannot be written") as caught:
            train_worker.trained("gru", STEPS, Kept(path, resume=True, every_s=0.0))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert "the one written before is intact" in caught.value.hint
    assert path.read_bytes() == old
    assert [each.name for each in tmp_path.iterdir()] == ["c"]
    _, found = train_worker.trained("gru", STEPS, Kept(path, resume=True))
    assert found.fitted.resumed_at == 4


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGKILL])
def test_a_process_that_is_stopped_can_go_on(number: signal.Signals, tmp_path: Path) -> None:
    whole, _ = train_worker.trained("gru", 150)
    out, path = tmp_path / "w.npz", tmp_path / "c"
    command = [sys.executable, train_worker.__file__, str(out), "gru", "150", str(path)]
    environment = {**os.environ, "PYTHONPATH": f"{ROOT}:{ROOT / 'tests'}", "OMP_NUM_THREADS": "1"}
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment
    ) as child:
        assert child.stdout is not None
        assert child.stderr is not None
        for line in child.stdout:
            if line == "step 5\n":
                child.send_signal(number)
                break
        child.stdout.read()
        said = child.stderr.read()
    assert child.returncode != 0
    assert not out.exists()
    if number == signal.SIGINT:
        assert "KeyboardInterrupt: interrupted after step" in said
    rest, found = train_worker.trained("gru", 150, Kept(path, resume=True))
    assert 4 <= found.fitted.resumed_at < 150
    assert_equal(rest, whole)
