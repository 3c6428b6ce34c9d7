"""A trial run tells the peak memory, or how its process died."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
from graphs import face, random_model, samples

from edgebm.errors import ResourceError
from edgebm.runtime.trial import try_out
from edgebm.search.build import build_float
from edgebm.search.candidates import Artifact, Candidate
from edgebm.search.runner import built
from edgebm.spec import EngineConfig

MODEL = random_model("g (float[1,8] x) => (float[1,4] y) { y = MatMul(x, w) }", w=(8, 4))
FEEDS = next(iter(samples(MODEL, 1).feeds()))


def test_a_good_artifact_has_a_peak() -> None:
    candidate = Candidate(build_float(MODEL, "onnxruntime"), EngineConfig())
    trial = try_out(built(candidate, face(MODEL)), FEEDS)
    assert trial.failed == ""
    assert trial.peak_mib is not None
    assert 10 < trial.peak_mib < 2000


def test_a_broken_artifact_says_why() -> None:
    broken = Artifact("onnxruntime", "int8", {"model.onnx": b"no model"}, MODEL)
    trial = try_out(built(Candidate(broken, EngineConfig()), face(MODEL)), FEEDS)
    assert trial.peak_mib is None
    assert "BackendFailed" in trial.failed


def test_without_room_for_a_process_no_candidate_failed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "executable", str(tmp_path / "none"))
    candidate = Candidate(build_float(MODEL, "onnxruntime"), EngineConfig())
    with pytest.raises(ResourceError, match="could not be started"):
        try_out(built(candidate, face(MODEL)), FEEDS)


@pytest.fixture
def dying(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Every process of Python ends by a signal."""
    program = tmp_path / "python"
    program.write_text(f"#!/bin/sh\nkill -{request.param} $$\n")
    program.chmod(0o755)
    monkeypatch.setattr(sys, "executable", str(program))


@pytest.mark.parametrize("dying", ["ILL"], indirect=True)
def test_a_process_that_a_signal_ends_is_named(dying: None) -> None:
    candidate = Candidate(build_float(MODEL, "onnxruntime"), EngineConfig())
    assert "SIGILL" in try_out(built(candidate, face(MODEL)), FEEDS).failed


@pytest.mark.parametrize("dying", ["INT", "TERM"], indirect=True)
def test_who_ends_the_process_ends_the_run_and_no_candidate_failed(dying: None) -> None:
    candidate = Candidate(build_float(MODEL, "onnxruntime"), EngineConfig())
    with pytest.raises(KeyboardInterrupt):
        try_out(built(candidate, face(MODEL)), FEEDS)
