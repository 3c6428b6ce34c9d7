"""The wheel on an arm64 Python: bundles load there, pass their self-test and answer alike.

The processor is emulated (a Cortex-A76: dot product and half precision), so no time means
anything. What is proved is that the integers of the dialect for ARM add up in the kernels of the
aarch64 wheel as they were simulated here. Needs what `prepare.py` makes.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import prepare
import pytest
from stateful_models import F, lstm_step
from tiny_models import IDS, IMAGES, cnn, short_recipe, transformer

import edgebm
from edgebm.ir.model import Model
from edgebm.runtime.bundle import read_bundle

pytestmark = pytest.mark.aarch64
PROJECT = Path(__file__).parents[2]
STEPS = np.random.default_rng(0).normal(size=(12, 6, 1, 1, F)).astype(np.float32)
Python = Callable[[Sequence[str]], str]
ANSWER = """
import json, sys
import edgebm
from edgebm.runtime.cpu import cpu_features
session = edgebm.load(sys.argv[1], target=sys.argv[2])
report = session.report()
keys = ("device", "runtime_version", "precision", "self_test", "self_test_tolerance")
told = {key: report[key] for key in (*keys, "stream_test")}
print(json.dumps({**told, "features": sorted(cpu_features())}))
"""


@pytest.fixture(scope="session")
def python(tmp_path_factory: pytest.TempPathFactory) -> Python:
    """Runs the arm64 Python with the wheel of this tree; gives what it prints."""
    if "EDGEBM_AARCH64" not in os.environ:
        pytest.fail("EDGEBM_AARCH64 must name a folder that tests/aarch64/prepare.py has filled")
    folder = Path(os.environ["EDGEBM_AARCH64"]).resolve()
    place = tmp_path_factory.mktemp("wheel")
    build = [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", str(place)]
    subprocess.run(build, cwd=PROJECT, capture_output=True, check=True)
    (wheel,) = place.glob("*.whl")
    pip = [sys.executable, "-m", "pip", "install", "--no-deps", "--no-index", "--target"]
    subprocess.run([*pip, str(place / "site"), str(wheel)], capture_output=True, check=True)

    def run(arguments: Sequence[str]) -> str:
        done = subprocess.run(
            [str(folder / prepare.STARTER), *arguments],
            env=prepare.environment(folder, place / "site"),
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    return run


@pytest.mark.parametrize("target", ["cpu-arm64", "raspberry-pi-5"])
@pytest.mark.parametrize(
    ("model", "samples"),
    [
        (cnn(), {"image": IMAGES}),
        (transformer(), {"ids": IDS}),
        (lstm_step(), {"x": STEPS}),
    ],
    ids=["cnn", "transformer", "lstm"],
)
def test_an_int8_bundle_answers_on_arm_as_it_was_simulated(
    model: Model, samples: dict[str, Any], target: str, tmp_path: Path, python: Python
) -> None:
    (tmp_path / "m.onnx").write_bytes(model.to_bytes())
    result = edgebm.compress(
        str(tmp_path / "m.onnx"),
        target=target,
        data=samples,
        recipe=short_recipe(),
        out=tmp_path / "m.edgebm",
        threads=1,
        all_candidates=True,
    )
    simulated = result.report["bundled"][target]
    assert simulated["simulated"]
    errors = {test["name"]: test["errors"] for test in simulated["tests"]}
    found = read_bundle(tmp_path / "m.edgebm").manifest.candidates
    ours = [c for c in found if c.runtime == "onnxruntime" and c.precision.startswith("int8")]
    assert ours
    for candidate in ours:
        told = json.loads(python(["-c", ANSWER, str(tmp_path / "m.edgebm"), candidate.id]))
        print(json.dumps({"candidate": candidate.id, **told}))
        assert told["device"] == "Cortex-A76"
        assert {"neon", "dotprod", "fp16"} <= set(told["features"])
        # Closer to the simulation than the tolerance asks: the same integers, other last bits.
        for name, error in told["self_test"].items():
            assert error == pytest.approx(errors[candidate.id][name], rel=0.1, abs=1e-4)
            assert error <= told["self_test_tolerance"][name]


def test_candidates_are_measured_there_and_chosen_here(tmp_path: Path, python: Python) -> None:
    (tmp_path / "m.onnx").write_bytes(cnn().to_bytes())
    given = {"target": "raspberry-pi-5", "data": {"image": IMAGES}, "threads": 1}
    made, figures = tmp_path / "all.edgebm", tmp_path / "m.json"
    edgebm.compress(str(tmp_path / "m.onnx"), out=made, all_candidates=True, **given)
    command = ["-m", "edgebm", "bench", str(made), "--candidates", "--seconds", "0.01"]
    print(python([*command, "-o", str(figures)]))
    report = edgebm.compress(str(tmp_path / "m.onnx"), measurements=figures, **given).report
    assert report["measured_on"]["cpu"] == "Cortex-A76"
    assert report["after"]["runtime"] == "onnxruntime"
    assert report["after"]["p50_ms"] > 0
    whys = {c["why"] for c in report["candidates"] if c["runtime"] == "openvino"}
    assert len(whys) == 1
    assert "openvino is not installed" in whys.pop()
