from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="torch is not installed")

import train_worker  # noqa: E402

from edgebm.errors import UsageError  # noqa: E402
from edgebm.grad.identity import Kept  # noqa: E402
from edgebm.grad.world import World, joined, leads  # noqa: E402

torch.set_num_threads(1)
ROOT = Path(train_worker.__file__).parents[1]
STEPS = 8
LONG = 5000


def free_port() -> int:
    with socket.socket() as held:
        held.bind(("127.0.0.1", 0))
        return int(held.getsockname()[1])


def started(out: Path, family: str, steps: int, *more: str) -> list[subprocess.Popen[str]]:
    """Two processes as torchrun starts them."""
    port = free_port()
    found = []
    for rank in range(2):
        environment = {
            **os.environ,
            "RANK": str(rank), "LOCAL_RANK": str(rank), "WORLD_SIZE": "2",
            "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port), "OMP_NUM_THREADS": "1",
            "PYTHONPATH": f"{ROOT}:{ROOT / 'tests'}",
        }  # fmt: skip
        command = [sys.executable, train_worker.__file__, f"{out}.{rank}.npz", family, str(steps)]
        found.append(
            subprocess.Popen(
                [*command, *more],
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                text=True,
                env=environment,
            )
        )
    return found


def loaded(path: str) -> dict[str, np.ndarray]:
    with np.load(path) as held:
        return {label: held[label] for label in held.files}


@pytest.mark.parametrize("family", ["cnn", "bert"])
def test_two_processes_give_the_weights_of_one(family: str, tmp_path: Path) -> None:
    out = tmp_path / "w"
    children = started(out, family, STEPS)
    alone, _ = train_worker.trained(family, STEPS)
    before = train_worker.weights(train_worker.made(family)[0])
    for child in children:
        _, said = child.communicate(timeout=100)
        assert child.returncode == 0, said
    first, second = (loaded(f"{out}.{rank}.npz") for rank in range(2))
    for label, array in alone.items():
        np.testing.assert_array_equal(first[label], second[label], err_msg=label)
        if array.dtype.kind != "f":
            continue
        moved = np.abs(array - before[label]).max()
        assert np.abs(first[label] - array).max() <= 1e-3 * moved + 1e-7, label
        assert moved > 0 or label == "table" or array.size == 1, label


def test_the_others_of_a_killed_process_leave_a_checkpoint(tmp_path: Path) -> None:
    path = tmp_path / "c"
    first, second = started(tmp_path / "w", "gru", LONG, str(path))
    assert first.stdout is not None
    for line in first.stdout:
        if line == "step 5\n":
            second.kill()
            break
    _, said = first.communicate(timeout=100)
    second.communicate(timeout=100)
    assert first.returncode == 1
    assert "WorkerLost: another process is gone after step" in said
    assert second.returncode == -signal.SIGKILL
    kept = Kept(path, resume=True)

    def stop(done: int, total: int) -> None:
        signal.raise_signal(signal.SIGINT)

    with pytest.raises(KeyboardInterrupt, match="interrupted after step"):
        train_worker.trained("gru", LONG, kept, stop)


def test_a_batch_is_shared_evenly() -> None:
    assert World(0, 2).leads
    assert not World(1, 2).leads
    assert leads()
    with joined("cpu") as world:
        assert (world.rank, world.size) == (0, 1)
        assert world.shared(3.0) == 3.0
    with pytest.raises(UsageError, match="device 'tpu' is not known"), joined("tpu"):
        pass
