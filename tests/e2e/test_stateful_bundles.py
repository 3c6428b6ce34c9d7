"""Models with state, from sequences to a bundle whose states the host's own loop carries."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from graphs import outputs
from stateful_models import C, F, H, decoder_step, lstm_step, speech

import edgebm
from edgebm.cli.main import main
from edgebm.ir.model import Model
from edgebm.runtime.bundle import read_bundle
from edgebm.runtime.npy import read_npy
from edgebm.spec import StateSpec

RNG = np.random.default_rng(0)
N, T = 20, 10
X = RNG.normal(size=(N, T, 1, F)).astype(np.float32)
QUICK: dict[str, Any] = {"threads": 1, "measure_s": 0.2}


def looped(session: Any, x: Any, start: dict[str, Any]) -> list[dict[str, Any]]:
    """Answers of `session.run`, step by step, with the states handed on."""
    held, found = dict(start), []
    for step in x:
        found.append(session.run({"x": step, **held}))
        held = {state.input: found[-1][state.output] for state in session.states}
    return found


def zeros(session: Any) -> dict[str, Any]:
    names = {state.input for state in session.states}
    return {
        spec.name: np.zeros([d if isinstance(d, int) else 0 for d in spec.shape], spec.dtype)
        for spec in session.inputs
        if spec.name in names
    }


def float_loop(model: Model, x: Any) -> list[dict[str, Any]]:
    held = {"h": np.zeros((2, 1, H), np.float32), "c": np.zeros((2, 1, H), np.float32)}
    found = []
    for step in x:
        found.append(outputs(model, {"x": step, **held}))
        held = {"h": found[-1]["hn"], "c": found[-1]["cn"]}
    return found


def chained(path: Path) -> int:
    """How many golden samples there are; each continues where the one before ended."""
    bundle = read_bundle(path)
    manifest = bundle.manifest
    with edgebm.load(path) as session:
        answer: dict[str, Any] = {}
        for index in range(manifest.golden):
            arrays, _ = bundle.golden(index)
            feeds = {s.name: a for s, a in zip(manifest.inputs, arrays, strict=True)}
            for state in manifest.states if answer else ():
                np.testing.assert_array_equal(feeds[state.input], answer[state.output])
            answer = session.run(feeds)
    return manifest.golden


@pytest.mark.parametrize("recipe", ["fp32", "int8"])
def test_an_lstm_step(tmp_path: Path, recipe: str) -> None:
    model, path = lstm_step(), tmp_path / "step.edgebm"
    result = edgebm.compress(model, data={"x": X}, recipe=recipe, out=path, **QUICK)
    manifest = read_bundle(path).manifest
    assert manifest.states == (StateSpec("h", "hn"), StateSpec("c", "cn"))
    assert chained(path) == 4
    report = result.report
    assert [state["input"] for state in report["states"]] == ["h", "c"]
    assert report["data"]["evaluation_steps"] == 4 * T
    assert any("states: h:hn" in note for note in report["notes"])
    chosen = next(c for c in report["candidates"] if c["status"] == "chosen")
    assert len(chosen["drift_db"]) == 3
    assert {c["runtime"] for c in report["candidates"]} == {"onnxruntime", "openvino"}
    with edgebm.load(path) as session:
        got = looped(session, X[0, :, None], zeros(session))
    want = float_loop(model, X[0, :, None])
    error = np.concatenate([a["y"] - b["y"] for a, b in zip(got, want, strict=True)])
    signal = np.concatenate([b["y"] for b in want])
    assert np.linalg.norm(error) < 0.1 * np.linalg.norm(signal)  # 20 dB


@pytest.mark.parametrize("runtime", ["onnxruntime", "openvino"])
def test_a_decoder_with_a_cache_is_nothing_special(tmp_path: Path, runtime: str) -> None:
    target = tmp_path / "target.yaml"
    target.write_text(_target(runtime))
    x = RNG.normal(size=(N, 24, 1, F)).astype(np.float32)
    path = tmp_path / "decoder.edgebm"
    edgebm.compress(decoder_step(), data={"x": x}, target=target, out=path, **QUICK)
    manifest = read_bundle(path).manifest
    assert manifest.states == (StateSpec("past_k", "present_k"), StateSpec("past_v", "present_v"))
    assert manifest.axes == {"past": (0, 65536)}
    assert chained(path) == 4
    held = {key: np.zeros((1, 0, F), np.float32) for key in ("past_k", "past_v")}
    with edgebm.load(path) as session:
        for step, answer in enumerate(looped(session, x[0, :, None], zeros(session))):
            want = outputs(decoder_step(), {"x": x[0, step][None], **held})
            held = {"past_k": want["present_k"], "past_v": want["present_v"]}
            assert answer["present_k"].shape == (1, step + 1, F)
            scale = np.abs(want["y"]).max()
            assert np.abs(answer["y"] - want["y"]).max() < 0.2 * scale + 0.05


def _target(runtime: str) -> str:
    return (
        "name: one\ndescription: one runtime\narch: x86_64\n"
        f"runtimes: [{runtime}]\nprecisions: [int8, f32]\nthreads: [1]\nfeatures: []\n"
    )


def test_initial_states_travel_in_the_bundle(tmp_path: Path) -> None:
    start = {"c": RNG.normal(size=(2, 1, H)).astype(np.float32)}
    path = tmp_path / "step.edgebm"
    edgebm.compress(
        lstm_step(), data={"x": X}, recipe="fp32", out=path, initial_state=start, **QUICK
    )
    bundle = read_bundle(path)
    assert bundle.manifest.states == (StateSpec("h", "hn"), StateSpec("c", "cn", "states/1.npy"))
    stored = read_npy(bytes(bundle.members["states/1.npy"]), "c")
    np.testing.assert_array_equal(stored, start["c"])
    first, _ = bundle.golden(0)
    np.testing.assert_array_equal(first[2], start["c"])


@pytest.mark.parametrize("many", [True, False])
def test_a_sequence_model_as_a_stream(tmp_path: Path, many: bool) -> None:
    model, path = speech(many=many), tmp_path / "speech.edgebm"
    x = RNG.normal(size=(N, 12, F)).astype(np.float32)
    best = np.stack([outputs(model, {"x": row[None]})["y"].argmax(-1)[0] for row in x])
    result = edgebm.compress(
        model, data={"x": x, "labels": best}, streaming=True, max_drop=100, out=path, **QUICK
    )
    assert result.report["before"]["metric"] == 100.0
    manifest = read_bundle(path).manifest
    assert [state.input for state in manifest.states] == ["lower.h0", "lower.c0", "upper.h0"]
    assert manifest.inputs[0].shape == (1, 1, F)
    assert chained(path) == 4
    with edgebm.load(path) as session:
        got = looped(session, x[0][:, None, None], zeros(session))
        with session.stream() as stream:
            for answer, frame in zip(got, x[0], strict=True):
                again = stream.step(frame[None, None])
                np.testing.assert_array_equal(again["y"], answer["y"])
                assert list(again) == ["y"]
    want = outputs(model, {"x": x[:1]})["y"]
    ours = np.concatenate([a["y"] for a in got], 1) if many else got[-1]["y"]
    assert ours.shape == want.shape
    assert np.abs(ours - want).max() < 0.2 * np.abs(want).max()
    figures = edgebm.evaluate(path, data={"x": x[:, :, None], "labels": best})
    assert figures["value"] > 80
    assert figures["samples"] == N


def test_the_command_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("step.onnx").write_bytes(lstm_step().to_bytes())
    Path("speech.onnx").write_bytes(speech("T").to_bytes())
    labels = RNG.integers(0, C, N)
    np.savez("seq.npz", x=X, labels=labels)
    np.savez("start.npz", h=np.ones((2, 1, H), np.float32))
    quick = ["--threads", "1", "--measure-seconds", "0.2", "-r", "fp32", "--max-drop", "100"]
    command = ["compress", "step.onnx", "-d", "seq.npz", "--state", "h:hn", "--state", "c:cn"]
    assert main([*command, "--initial-state", "start.npz", *quick]) == 0
    manifest = read_bundle("step.edgebm").manifest
    assert manifest.states == (StateSpec("h", "hn", "states/0.npy"), StateSpec("c", "cn"))
    pairs = ["--state", "h:hn", "--state", "c:cn"]
    for scored in (["step.edgebm"], ["step.onnx", *pairs]):
        capsys.readouterr()
        assert main(["evaluate", *scored, "-d", "seq.npz", "--json"]) == 0
        assert json.loads(capsys.readouterr().out)["samples"] == N
    dry = ["compress", "speech.onnx", "-d", "seq.npz", "--streaming", "--dry-run", "--json"]
    assert main(dry) == 0
    assert len(json.loads(capsys.readouterr().out)["states"]) == 3


def test_wrong_arguments(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("step.onnx").write_bytes(lstm_step().to_bytes())
    np.savez("seq.npz", x=X)
    command = ["compress", "step.onnx", "-d", "seq.npz"]
    assert main([*command, "--state", "h:y", "--state", "cc:cn"]) == 2
    told = capsys.readouterr().err
    assert "they are no pair" in told
    assert "there is no input 'cc'; did you mean 'c'?" in told
    assert main([*command, "--initial-state", "gone.npz"]) == 2
    assert "--initial-state gone.npz: there is no such file" in capsys.readouterr().err
    bundle = tmp_path / "b.edgebm"
    edgebm.compress("step.onnx", data="seq.npz", recipe="fp32", out=bundle, **QUICK)
    assert main(["evaluate", str(bundle), "-d", "seq.npz", "--state", "h:hn"]) == 2
    assert "a bundle knows its states" in capsys.readouterr().err
