"""A trial run tells the peak memory, or how its process died."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
from graphs import face, random_model, samples

from edgebm.search.build import build_float
from edgebm.search.candidates import Artifact, Candidate
from edgebm.search.trial import try_out
from edgebm.spec import EngineConfig

MODEL = random_model("g (float[1,8] x) => (float[1,4] y) { y = MatMul(x, w) }", w=(8, 4))
FEEDS = next(iter(samples(MODEL, 1).feeds()))


def test_a_good_artifact_has_a_peak() -> None:
    candidate = Candidate(build_float(MODEL, "onnxruntime"), EngineConfig())
    trial = try_out(candidate, face(MODEL), FEEDS)
    assert trial.failed == ""
    assert trial.peak_mib is not None
    assert 10 < trial.peak_mib < 2000


def test_a_broken_artifact_says_why() -> None:
    broken = Artifact("onnxruntime", "int8", {"model.onnx": b"no model"}, MODEL)
    trial = try_out(Candidate(broken, EngineConfig()), face(MODEL), FEEDS)
    assert trial.peak_mib is None
    assert "BackendFailed" in trial.failed


def test_a_process_that_a_signal_ends_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    dying = tmp_path / "python"
    dying.write_text("#!/bin/sh\nkill -ILL $$\n")
    dying.chmod(0o755)
    monkeypatch.setattr(sys, "executable", str(dying))
    candidate = Candidate(build_float(MODEL, "onnxruntime"), EngineConfig())
    assert "SIGILL" in try_out(candidate, face(MODEL), FEEDS).failed
