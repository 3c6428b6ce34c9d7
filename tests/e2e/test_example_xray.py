"""`examples/medical_xray`, shortened: trained, gated, compressed, run, and its maps compared."""

from __future__ import annotations

import os
import re
import sys
from pathlib import Path

import numpy as np
import pytest
from example_calls import EXAMPLES, WITHOUT_HOST, call, compress, edgebm_command, python

pytest.importorskip("torch", reason="torch is not installed")
pytest.importorskip("onnxscript", reason="onnxscript, with which torch exports, is not installed")
DATA = os.environ.get("EDGEBM_DATA")
pytestmark = pytest.mark.skipif(
    not DATA or not (Path(DATA) / "pneumonia_xray" / "pneumoniamnist.npz").is_file(),
    reason="EDGEBM_DATA names no folder with pneumonia_xray/pneumoniamnist.npz",
)
EXAMPLE = EXAMPLES / "medical_xray"


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What train.py writes in a few epochs over a few images."""
    folder = tmp_path_factory.mktemp("example") / "xray"
    edgebm_command(folder)
    short = ("--epochs", 8, "--width", 8, "--limit", 400)
    python(folder, EXAMPLE / "train.py", "--out", folder, *short)
    return folder


@pytest.fixture(scope="module")
def bundle(trained: Path) -> Path:
    path = trained / "xray.edgebm"
    stopped = compress(EXAMPLE, trained, "1")  # so little training does not judge all rightly
    assert stopped.returncode == 3, stopped.stderr
    assert "the gate asks for" in stopped.stderr
    assert not path.exists()
    done = compress(EXAMPLE, trained, "0.001")
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("gate passed: ") == 2
    return path


def on_device(trained: Path, bundle: Path, samples: Path) -> list[str]:
    command = ("-c", WITHOUT_HOST, EXAMPLE / "device.py", bundle, samples)
    return python(trained, *command).splitlines()


def test_the_device_tells_what_the_figures_count(trained: Path, bundle: Path) -> None:
    test = trained / "test.npz"
    lines = on_device(trained, bundle, test)
    with np.load(test) as file:
        labels = file["labels"]
    told = np.array([line.split(": ")[1] == "pneumonia" for line in lines[: len(labels)]])
    sick = labels == 1
    found = f"{int(told[sick].sum())} of {int(sick.sum())}"
    spared = f"{int((~told[~sick]).sum())} of {int((~sick).sum())}"
    assert lines[-1] == f"{found} images with pneumonia are told as such"
    assert lines[-2] == f"{spared} images with normal are told as such"
    figures = EXAMPLES / "medical_ecg" / "figures.py"
    table = python(trained, figures, trained / "xray.onnx", bundle, test)
    rows = (row.strip("| ").split(" | ") for row in table.splitlines())
    after = {row[0]: row[-1] for row in rows}
    assert after["sensitivity"].endswith(f"{found})")
    assert after["specificity"].endswith(f"{spared})")


def test_images_that_cannot_be_judged(trained: Path, bundle: Path) -> None:
    with np.load(trained / "test.npz") as file:
        images = file["image"][:6]
    images[1, 0, 3, 3] = np.nan
    images[2] = 7
    images[3] /= 255
    images[4] *= 100
    odd = trained / "odd.npz"
    np.savez(odd, image=images)
    lines = on_device(trained, bundle, odd)
    assert re.match(r"image 1: no verdict: .*NaN", lines[1])
    assert lines[2] == "image 2: no verdict: every pixel is 7"
    assert lines[3] == "image 3: no verdict: no value is above 1"
    assert "calibration" in lines[4]
    assert "no verdict" not in lines[0] + lines[4] + lines[5]
    assert lines[-1].endswith("3 no verdict")
    # Bytes without an axis for the channel are as good.
    np.savez(odd, image=images[[0, 5], 0].astype(np.uint8))
    assert on_device(trained, bundle, odd)[:1] == lines[:1]


def test_both_look_at_the_same_place(trained: Path, bundle: Path) -> None:
    """The maps are alike, and far more than maps of different images are."""
    assert bundle.exists()
    done = call(trained, sys.executable, EXAMPLE / "saliency.py", trained)
    if "nothing to compare" in done.stderr:
        pytest.skip("the float model was the fastest on this machine")
    assert done.returncode == 0, done.stderr
    told = done.stdout
    alike, others = (float(value) for value in re.findall(r"mean (-?[0-9.]+)", told))
    assert others < alike
    assert 0.8 < alike <= 1
    agreed = re.search(r"answers as the bundle: (\d+) of (\d+)", told)
    assert agreed is not None
    assert int(agreed[1]) >= 0.97 * int(agreed[2])
    assert (trained / "saliency.png").read_bytes().startswith(b"\x89PNG")
