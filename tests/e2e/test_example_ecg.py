"""`examples/medical_ecg`, shortened: trained, gated, compressed, run and counted."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest
from example_calls import EXAMPLES, compress, edgebm_command, python, short_recipe

pytest.importorskip("torch", reason="torch is not installed")
pytest.importorskip("onnxscript", reason="onnxscript, with which torch exports, is not installed")
DATA = os.environ.get("EDGEBM_DATA")
pytestmark = pytest.mark.skipif(
    not DATA or not (Path(DATA) / "ecg5000_train" / "ecg5000_train.npz").is_file(),
    reason="EDGEBM_DATA names no folder with ecg5000_train/ecg5000_train.npz",
)
EXAMPLE = EXAMPLES / "medical_ecg"


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What train.py writes in a few epochs; a command `edgebm` lies beside the folder."""
    folder = tmp_path_factory.mktemp("example") / "ecg"
    edgebm_command(folder)
    python(folder, EXAMPLE / "train.py", "--out", folder, "--epochs", "15", "--width", "24")
    return folder


def test_gate_bundle_device_and_figures(trained: Path) -> None:
    bundle, test = trained / "beats.edgebm", trained / "test.npz"
    taught_shortly = ("-r", short_recipe(EXAMPLE, trained))
    # So little training does not find every beat.
    stopped = compress(EXAMPLE, trained, "1", *taught_shortly)
    assert stopped.returncode == 3, stopped.stderr
    assert "the gate asks for" in stopped.stderr
    assert not bundle.exists()
    done = compress(EXAMPLE, trained, "0.001", *taught_shortly)
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("gate passed: ") == 2

    lines = python(trained, EXAMPLE / "device.py", bundle, test).splitlines()
    with np.load(test) as file:
        labels, beats = file["labels"], file["beat"]
    told = [("normal", "abnormal").index(line.split()[2]) for line in lines[: len(labels)]]
    right = int(np.sum(told == labels))
    found = int(np.sum(labels[np.array(told) == 1]))
    sick = int(labels.sum())
    assert lines[-1] == f"sensitivity: {found} of {sick} abnormal beats told as such"
    table = python(
        trained,
        EXAMPLE / "figures.py",
        trained / "beats.onnx",
        bundle,
        test,
        "--kinds",
        trained / "kinds.npz",
    )
    rows = (row.strip("| ").split(" | ") for row in table.splitlines())
    after = {row[0]: row[-1] for row in rows}
    assert after["accuracy"].endswith(f"{right} of {len(labels)})")
    assert after["sensitivity"].endswith(f"{found} of {sick})")
    assert after["kind: unclassified"].endswith(" of 1)")

    odd = beats[:3].copy()
    odd[1, 7], odd[2] = np.nan, 0.5
    np.savez(trained / "odd.npz", beat=odd)
    lines = python(trained, EXAMPLE / "device.py", bundle, trained / "odd.npz").splitlines()
    assert lines[1] == "beat 1: no verdict: 1 of 140 values are NaN or infinite, the first at 7"
    assert lines[2] == "beat 2: no verdict: a flat line"
    assert lines[3].endswith("2 without a verdict")
