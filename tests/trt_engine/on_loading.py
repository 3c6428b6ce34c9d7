"""Bundles with a variant for TensorRT: loaded, built, cached, stepped through."""

from __future__ import annotations

import ctypes
import json
import math
import re
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tensorrt as trt
from trt_cases import cases, opened, with_tensorrt

import edgebm
from edgebm.bundle_writer import write_bundle
from edgebm.errors import (
    BackendFailed,
    BackendLost,
    BackendUnavailable,
    EngineStale,
    ResourceError,
    StateError,
)
from edgebm.runtime.cache_folder import SUFFIX
from edgebm.runtime.cache_place import CacheFolder
from edgebm.spec import Manifest, Variant

NAMES = ("image", "tokens", "echo", "lstm", "chunks", "decoder")


@pytest.fixture
def cache(tmp_path: Path) -> CacheFolder:
    """One that keeps every model, however fast it is built."""
    return CacheFolder(tmp_path / "cache", least_saved_ms=-1)


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> CacheFolder:
    """For tests that are about something else."""
    return CacheFolder(tmp_path_factory.mktemp("shared"), least_saved_ms=-1)


@pytest.mark.parametrize("name", NAMES)
def test_a_bundle_is_built_proved_stored_and_read_back(
    name: str, data: Path, tmp_path: Path, cache: CacheFolder, version: str
) -> None:
    bundle = with_tensorrt(data / f"{name}.edgebm", tmp_path)
    with edgebm.load(bundle, cache=cache, build="wait") as session:
        report = session.report()
    assert (report["runtime"], report["runtime_version"]) == ("tensorrt", version)
    assert report["device"] == "Stand-in"
    assert report["cache"]["state"] == "stored"
    assert report["self_test"]
    assert not report["warnings"]
    assert report["layers"]
    with edgebm.load(bundle, cache=cache, build="wait") as session:
        again = session.report()
    assert again["cache"]["state"] == "hit"
    assert again["layers"] == report["layers"]


@pytest.mark.parametrize("name", ["echo", "lstm", "chunks", "decoder"])
def test_streams_answer_as_on_a_cpu(
    name: str, data: Path, tmp_path: Path, shared: CacheFolder
) -> None:
    bundle = with_tensorrt(data / f"{name}.edgebm", tmp_path)
    rng = np.random.default_rng(5)
    with (
        edgebm.load(bundle, target="tensorrt", cache=shared, build="wait") as gpu,
        edgebm.load(bundle, target="onnxruntime", cache=shared, build="wait") as cpu,
        gpu.stream() as one,
        cpu.stream() as other,
    ):
        assert one.inputs == other.inputs
        lengths = (2, 1, 1, 3, 2) if name == "chunks" else (1,) * 8
        snapshot = b""
        for step, length in enumerate(lengths):
            shape = (length, 1, 4) if name == "chunks" else None
            x = rng.normal(size=shape or [int(d) for d in one.inputs[0].shape])
            same(one.step(x.astype(np.float32)), other.step(x.astype(np.float32)))
            same(one.states, other.states)
            if step == 2:
                snapshot = one.snapshot()
                kept = one.states
        same(one.states, other.states)
        one.restore(snapshot)
        same(one.states, kept)
        other.reset(kept)
        x = np.ones_like(x, np.float32)
        same(one.step(x), other.step(x))
        one.reset()
        other.reset()
        same(one.step(x), other.step(x))
        same(one.step(x), other.step(x))


def same(got: Any, due: Any) -> None:
    assert got.keys() == due.keys()
    for name in got:
        np.testing.assert_allclose(got[name], due[name], rtol=1e-6, atol=1e-7)


@pytest.mark.parametrize(("name", "each"), [("echo", 16), ("lstm", 16), ("decoder", 16)])
def test_a_step_uploads_no_state(
    name: str, each: int, data: Path, tmp_path: Path, shared: CacheFolder, gpu: ctypes.CDLL
) -> None:
    bundle = with_tensorrt(data / f"{name}.edgebm", tmp_path)
    with edgebm.load(bundle, cache=shared, build="wait") as session, session.stream() as stream:
        x = np.ones([int(d) for d in stream.inputs[0].shape], np.float32)
        stream.step(x)
        gpu.standin_copied(1)
        for _ in range(5):
            stream.step(x)
            assert gpu.standin_copied(1) == each
        # What comes from here goes up once.
        stream.reset()
        stream.step(x)
        assert gpu.standin_copied(1) > each
        stream.step(x)
        assert gpu.standin_copied(1) == each


@pytest.mark.parametrize("name", ["echo", "decoder"])
def test_a_state_that_is_not_finite_is_not_kept(
    name: str, data: Path, tmp_path: Path, shared: CacheFolder
) -> None:
    bundle = with_tensorrt(data / f"{name}.edgebm", tmp_path)
    with (
        edgebm.load(bundle, cache=shared, nonfinite="allow", build="wait") as session,
        session.stream() as stream,
        session.stream() as calm,
    ):
        x = np.ones([int(d) for d in stream.inputs[0].shape], np.float32)
        bad = np.full_like(x, math.inf)
        for k in range(4):
            same(stream.step(x), calm.step(x))
            if k != 1:
                with pytest.raises(StateError, match="gives no usable state"):
                    stream.step(bad)
            same(stream.states, calm.states)


def test_a_failed_step_leaves_the_state(
    data: Path, tmp_path: Path, shared: CacheFolder, gpu: ctypes.CDLL
) -> None:
    bundle = with_tensorrt(data / "lstm.edgebm", tmp_path)
    with (
        edgebm.load(bundle, cache=shared, build="wait") as session,
        session.stream() as stream,
        session.stream() as calm,
    ):
        x = np.ones((1, 1, 4), np.float32)
        for after in (0, 1, 2):
            same(stream.step(x), calm.step(x))
            gpu.standin_fail(b"cudaMemcpyAsync", after, 1)
            with pytest.raises(BackendFailed, match="invalid argument"):
                stream.step(x)
            same(stream.states, calm.states)
        same(stream.step(x), calm.step(x))


def test_after_a_lost_device_every_call_says_so(
    data: Path, tmp_path: Path, shared: CacheFolder, gpu: ctypes.CDLL
) -> None:
    bundle = with_tensorrt(data / "echo.edgebm", tmp_path)
    with edgebm.load(bundle, cache=shared, build="wait") as session, session.stream() as stream:
        x = np.ones((1, 4), np.float32)
        stream.step(x)
        states = stream.states
        gpu.standin_fail(b"cudaStreamSynchronize", 0, 719)
        with pytest.raises(BackendLost, match="unspecified launch failure"):
            stream.step(x)
        gpu.standin_reset()
        for _ in range(2):
            with pytest.raises(BackendLost, match="was lost before"):
                stream.step(x)
            with pytest.raises(BackendLost, match="was lost before"):
                session.run({"x": x, "h_in": x})
        same(stream.states, states)
        assert session.health().state == "ERROR"


def entry_of(cache: CacheFolder) -> Path:
    (path,) = (p for p in cache.path.glob(f"*{SUFFIX}") if not p.name.startswith("timings-"))
    return path


def test_a_tampered_plan_is_a_miss(data: Path, tmp_path: Path, cache: CacheFolder) -> None:
    bundle = with_tensorrt(data / "image.edgebm", tmp_path)
    edgebm.load(bundle, cache=cache, build="wait").close()
    whole = entry_of(cache).read_bytes()
    for at in (20, len(whole) // 2, len(whole) - 40):
        entry_of(cache).write_bytes(whole[:at] + bytes([whole[at] ^ 1]) + whole[at + 1 :])
        with edgebm.load(bundle, cache=cache, build="wait") as session:
            report = session.report()
        assert report["cache"]["state"] == "stored"
        assert report["cache"]["rejected"] == 1
        assert "an entry of the cache was deleted" in report["warnings"][0]


def test_a_plan_of_another_place_is_a_miss(
    data: Path, tmp_path: Path, cache: CacheFolder, monkeypatch: pytest.MonkeyPatch
) -> None:
    bundle = with_tensorrt(data / "image.edgebm", tmp_path)
    edgebm.load(bundle, cache=cache, build="wait").close()
    monkeypatch.setenv("STANDIN_CUDA_NAME", "Other")
    with edgebm.load(bundle, cache=cache, build="wait") as session:
        found = session.report()["cache"]
    assert found["state"] == "stored"
    assert found["why"] == "it was stored for another vendor.gpu.name"


def test_a_plan_that_the_vendor_refuses_is_built_anew(
    data: Path, tmp_path: Path, cache: CacheFolder, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As after an update that kept its version number."""
    bundle = with_tensorrt(data / "image.edgebm", tmp_path)
    edgebm.load(bundle, cache=cache, build="wait").close()
    with monkeypatch.context() as patch:
        real = trt.Runtime.deserialize_cuda_engine
        calls: list[int] = []

        def refuse_once(self: Any, plan: bytes) -> Any:
            calls.append(1)
            return None if len(calls) == 1 else real(self, plan)

        patch.setattr(trt.Runtime, "deserialize_cuda_engine", refuse_once)
        with edgebm.load(bundle, cache=cache, build="wait") as session:
            found = session.report()
    assert found["cache"]["rejected"] == 1
    assert found["cache"]["state"] == "stored"
    assert "it may be of another version of TensorRT" in found["warnings"][0]


def test_no_memory_to_read_a_plan_keeps_it(
    data: Path, tmp_path: Path, cache: CacheFolder, gpu: ctypes.CDLL
) -> None:
    bundle = with_tensorrt(data / "image.edgebm", tmp_path)
    edgebm.load(bundle, cache=cache, build="wait").close()
    gpu.standin_limit(0)
    with pytest.raises(ResourceError, match="out of memory"):
        edgebm.load(bundle, cache=cache, build="wait")
    gpu.standin_reset()
    with edgebm.load(bundle, cache=cache, build="wait") as session:
        assert session.report()["cache"]["state"] == "hit"


def test_another_variant_is_taken_where_there_is_no_gpu(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    bundle = with_tensorrt(data / "image.edgebm", tmp_path)
    monkeypatch.setenv("STANDIN_CUDA_DEVICES", "0")
    with pytest.raises(BackendUnavailable, match="finds no GPU"):
        edgebm.load(bundle)
    with edgebm.load(bundle, target=["tensorrt", "onnxruntime"]) as session:
        report = session.report()
    assert report["runtime"] == "onnxruntime"
    assert "finds no GPU" in report["why"]


def test_layers_that_were_to_run_in_int8_are_named(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    case, place = cases()["int8"], "variants/jetson/tensorrt/model.onnx"
    files = {"model.onnx": place}
    variant = Variant("jetson", "tensorrt", "int8", files, replace(case.config, threads=1), "")
    manifest = Manifest("int8", "0", case.inputs, case.outputs, (variant,))
    bundle = write_bundle(tmp_path / "int8.edgebm", manifest, {place: case.model})
    with edgebm.load(bundle, cache=False, build="wait") as session:
        report = session.report()
    assert report["layers"] == {"f32": 1, "int8": 2}
    assert report["warnings"] == []
    monkeypatch.setenv("STANDIN_TRT_FLOAT", "MatMul_8")
    with edgebm.load(bundle, cache=False, build="wait") as session:
        report = session.report()
    assert report["layers"] == {"f32": 2, "int8": 1}
    assert report["warnings"] == [
        "these layers were to run in int8 and run in float here: ['MatMul_8']"
    ]


def test_edgebm_build(data: Path, tmp_path: Path) -> None:
    bundle = with_tensorrt(data / "tokens.edgebm", tmp_path)
    command = [sys.executable, "-m", "edgebm", "build", str(bundle), "--json"]
    command += ["--cache", str(tmp_path / "cache"), "--target", "tensorrt"]
    states = []
    for _ in range(2):
        done = subprocess.run(command, capture_output=True, text=True, check=True)
        found = json.loads(done.stdout)
        states.append(found["cache"]["state"])
        assert found["runtime"] == "tensorrt"
    assert states == ["stored", "hit"]


def test_an_engine_that_is_not_built_is_not_built_unasked(
    data: Path, tmp_path: Path, cache: CacheFolder
) -> None:
    bundle = with_tensorrt(data / "image.edgebm", tmp_path)
    with pytest.raises(EngineStale, match="nothing was stored before"):
        edgebm.load(bundle, "tensorrt", cache=cache)
    edgebm.load(bundle, "tensorrt", cache=cache, build="wait").close()
    with edgebm.load(bundle, "tensorrt", cache=cache) as session:
        assert session.report()["cache"]["state"] == "hit"


def test_a_session_goes_over_to_tensorrt_when_its_engine_is_built(
    data: Path, tmp_path: Path, cache: CacheFolder
) -> None:
    bundle = with_tensorrt(data / "image.edgebm", tmp_path)
    wanted = ["tensorrt", "onnxruntime"]
    with edgebm.load(bundle, wanted, cache=cache, build="background") as session:
        assert session.report()["build"]["name"] == "tensorrt"
        deadline_s = time.monotonic() + 60
        while session.report()["build"]["state"] == "running" and time.monotonic() < deadline_s:
            time.sleep(0.01)
        report = session.report()
        assert report["build"]["state"] == "done", report["build"]
        assert (report["runtime"], report["degraded"]) == ("tensorrt", False)
        assert report["cache"]["state"] == "stored"
        session.run(session._example)


def known_timings(cache: CacheFolder) -> list[int]:
    """How many nodes had been timed before, by each plan that is stored."""
    plans = (path.read_bytes() for path in cache.path.glob(f"*{SUFFIX}"))
    found = (re.search(rb'"known_timings": (\d+)', content) for content in plans)
    return [int(each[1]) for each in found if each]


def test_what_was_timed_is_not_timed_again(data: Path, tmp_path: Path, cache: CacheFolder) -> None:
    bundle = with_tensorrt(data / "image.edgebm", tmp_path)
    for before in (False, True):
        for path in cache.path.glob(f"*{SUFFIX}"):
            if not path.name.startswith("timings-"):
                path.unlink()
        edgebm.load(bundle, cache=cache, build="wait").close()
        (count,) = known_timings(cache)
        assert (count > 0) == before
    (timings,) = cache.path.glob(f"timings-*{SUFFIX}")
    content = bytearray(timings.read_bytes())
    content[-40] ^= 1  # of the body, or of its code
    timings.write_bytes(content)
    for path in cache.path.glob(f"*{SUFFIX}"):
        if path != timings:
            path.unlink()
    edgebm.load(bundle, cache=cache, build="wait").close()
    assert known_timings(cache) == [0], "changed timings are none"
    assert timings.read_bytes() != content


class Kept:
    """Timings without a cache."""

    def __init__(self, content: bytes) -> None:
        self.content = content

    def read(self) -> bytes:
        return self.content

    def write(self, content: bytes) -> None:
        self.content = content


@pytest.mark.parametrize(
    "before", [b"", b"garbage", b'{"place": ["1.0", "another"], "nodes": ["Mul_0"]}']
)
def test_timings_of_elsewhere_are_begun_anew(before: bytes, version: str) -> None:
    timings = Kept(before)
    opened(cases()["fixed"], timings=timings).engine.close()
    assert json.loads(timings.content) == {
        "place": [version, ["Stand-in", 8, 7]],
        "nodes": ["Mul_0"],
    }
