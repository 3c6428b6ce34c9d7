"""A board with TensorRT measures what was compressed for it, and the host chooses by that."""

from __future__ import annotations

from pathlib import Path

import pytest
from tiny_models import IMAGES, QUICK, cnn

import edgebm
from edgebm.cli.main import main
from edgebm.runtime.bundle import read_bundle
from edgebm.runtime.engines import tensorrt_child

TARGET = "nvidia-gpu"


def test_candidates_are_built_once_and_decide(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    every, figures, final = (tmp_path / name for name in ("all.edgebm", "m.json", "m.edgebm"))
    given = {"data": {"image": IMAGES}, "target": TARGET, **QUICK}
    edgebm.compress(cnn(), out=every, all_candidates=True, **given)
    candidates = {each.precision for each in read_bundle(every).manifest.candidates}
    assert {"f32", "f16", "int8+f16"} <= candidates

    builds: list[int] = []
    started = tensorrt_child._started
    monkeypatch.setattr(tensorrt_child, "_started", lambda root: builds.append(1) or started(root))
    command = ["bench", str(every), "--candidates", "--seconds", "0.2", "-o", str(figures)]
    assert main(command) == 0, capsys.readouterr().err
    assert len(builds) == len(candidates)

    result = edgebm.compress(cnn(), out=final, measurements=figures, **given)
    timed = {each["precision"]: each["p50_ms"] for each in result.report["candidates"]}
    assert all(timed[precision] is not None for precision in candidates)
    with edgebm.load(final, build="wait") as session:
        report = session.report()
    assert report["runtime"] == "tensorrt"
    assert report["precision"] == result.report["after"]["precision"]
    assert max(report["self_test"].values()) < 1
