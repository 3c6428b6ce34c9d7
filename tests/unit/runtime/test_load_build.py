"""Engines that take minutes: not built unasked, waited for, or built behind a session."""

from __future__ import annotations

import gc
import os
import threading
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import slow_engine
from gated_engine import LONG_S, wait_until
from slow_engine import RUNTIME, SlowRuntime
from test_engines import onnx_bytes

import edgebm
import edgebm.errors
from edgebm.bundle_writer import write_bundle
from edgebm.errors import BackendFailed, BackendUnavailable, Closed, EngineStale, UsageError
from edgebm.runtime import session as session_module
from edgebm.runtime.build_rules import BuildRules
from edgebm.runtime.bundle import read_bundle
from edgebm.runtime.cache_place import CacheFolder
from edgebm.runtime.container import MANIFEST
from edgebm.spec import EngineConfig, Manifest, StateSpec, TensorSpec, Variant

BOTH = [RUNTIME, "onnxruntime"]


@pytest.fixture
def slow(monkeypatch: pytest.MonkeyPatch) -> Iterator[SlowRuntime]:
    runtime = slow_engine.installed(monkeypatch)
    yield runtime
    runtime.go.set()


@pytest.fixture
def bundle(tmp_path: Path) -> Path:
    """One input and a state. Who answered shows in both outputs: `y` = `x` + `who` + `h`."""
    text = """(float[n] x, float[1] h, float[1] k) => (float[n] y, float[1] who, float[1] h_out)
        { a = Add(x, k) y = Add(a, h) who = Identity(k) h_out = Add(h, k) }"""
    members, variants = {}, []
    for number, runtime in enumerate(BOTH[::-1], 1):
        path = f"variants/t/{runtime}/model.onnx"
        members[path] = onnx_bytes(text, k=np.array([number], np.float32))
        config = EngineConfig(static_shapes=({"x": (2,), "h": (1,)},))
        files = {"model.onnx": path}
        variants.append(Variant("t", runtime, "f32", files, config, "1"))
    x, h = TensorSpec("x", "float32", ("n",)), TensorSpec("h", "float32", (1,))
    y, who, h_out = replace(x, name="y"), replace(h, name="who"), replace(h, name="h_out")
    manifest = Manifest(
        "slow", "0", (x, h), (y, who, h_out), tuple(variants),
        states=(StateSpec("h", "h_out", ""),), axes={"n": (1, 9)},
    )  # fmt: skip
    return write_bundle(tmp_path / "slow.edgebm", manifest, members)


def asked(session: edgebm.Session, size: int = 2) -> float:
    """Who answers: 1 is ONNX Runtime, 2 the engine that was built."""
    answer = session.run({"x": np.zeros(size, np.float32), "h": np.zeros(1, np.float32)})
    np.testing.assert_array_equal(answer["y"], np.repeat(answer["who"], size))
    return float(answer["who"][0])


def background(bundle: Path, **options: Any) -> edgebm.Session:
    return edgebm.load(bundle, BOTH, build="background", cache=False, **options)


def state(session: edgebm.Session) -> str:
    return str(session.report()["build"]["state"])


@pytest.mark.usefixtures("slow")
def test_nothing_is_built_unasked(bundle: Path) -> None:
    with pytest.raises(EngineStale, match="is not built on this device") as caught:
        edgebm.load(bundle, RUNTIME, cache=False)
    assert f"edgebm build {bundle}" in caught.value.hint
    with edgebm.load(bundle, BOTH, cache=False) as session:
        assert asked(session) == 1
        report = session.report()
        assert report["degraded"] is True
        assert "not built" in report["why"]
        assert report["build"] is None


def test_a_runtime_that_is_missing_is_said_before_a_build_is_advised(
    tmp_path: Path, bundle: Path
) -> None:
    read = read_bundle(bundle)
    first, second = read.manifest.variants
    members = {name: bytes(data) for name, data in read.members.items() if name != MANIFEST}
    manifest = replace(read.manifest, variants=(first, replace(second, runtime="tensorrt")))
    path = write_bundle(tmp_path / "trt.edgebm", manifest, members)
    with pytest.raises(BackendUnavailable):
        edgebm.load(path, "tensorrt", cache=False)


def test_waiting_builds_with_the_limits_that_are_given(slow: SlowRuntime, bundle: Path) -> None:
    slow.go.set()
    seen: list[tuple[str, int, int]] = []
    rules = BuildRules("wait", 30, 1 << 20, lambda *step: seen.append(step))
    with edgebm.load(bundle, RUNTIME, cache=False, build=rules, trial_s=20) as session:
        assert asked(session) == 2
        assert session.report()["degraded"] is False
        assert session.report()["trial_peak_mib"] is None
    (building,) = slow.builds
    assert (building.limit_s, building.workspace_bytes) == (30, 1 << 20)
    assert seen == [("tactics", 1, 4)]


def test_a_build_that_fails_while_load_waits_is_its_error(slow: SlowRuntime, bundle: Path) -> None:
    slow.error = BackendFailed("no tactic")
    slow.go.set()
    with pytest.raises(BackendFailed, match="no tactic"):
        edgebm.load(bundle, RUNTIME, cache=False, build="wait")
    with edgebm.load(bundle, BOTH, cache=False, build="wait") as session:
        assert asked(session) == 1
        assert "no tactic" in session.report()["why"]


def test_what_was_built_once_opens_without_leave(
    slow: SlowRuntime, bundle: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(CacheFolder, "pays", lambda *_: True)
    slow.go.set()
    folder = tmp_path / "cache"
    with edgebm.load(bundle, RUNTIME, cache=folder, build="wait") as session:
        assert session.report()["cache"]["state"] == "stored"
    for build in ("never", "background"):
        with edgebm.load(bundle, BOTH, cache=folder, build=build) as session:  # type: ignore[arg-type]
            assert asked(session) == 2
            report = session.report()
            assert (report["cache"]["state"], report["build"]) == ("hit", None)
    assert len(slow.builds) == 1


def test_a_session_goes_over_to_the_engine_that_was_built(slow: SlowRuntime, bundle: Path) -> None:
    with background(bundle) as session:
        slow.wait_begun()
        assert asked(session) == 1
        report = session.report()
        assert (report["runtime"], report["degraded"]) == ("onnxruntime", True)
        assert "slow is being built (tactics 1/4)" in report["why"]
        assert "t/onnxruntime answers meanwhile" in report["why"]
        assert report["build"]["state"] == "running"
        health = session.health()
        assert health.state == "WARN"
        assert "being built" in health.reasons[0]
        calls = health.calls
        slow.go.set()
        wait_until(lambda: state(session) == "done")
        assert asked(session) == 2
        assert asked(session, size=5) == 2
        report = session.report()
        assert (report["runtime"], report["degraded"], report["why"]) == (RUNTIME, False, "")
        assert report["requested"] == BOTH
        # Calls are counted on, and what the proof of the engine took is no call.
        assert session.health().calls == calls + 2
        assert session.health().state == "OK"


def test_a_build_that_fails_leaves_the_fallback(slow: SlowRuntime, bundle: Path) -> None:
    slow.error = BackendFailed("no tactic")
    with background(bundle) as session:
        slow.go.set()
        wait_until(lambda: state(session) == "failed")
        assert asked(session) == 1
        report = session.report()
        assert report["degraded"] is True
        assert report["why"] == "slow could not be built: no tactic; t/onnxruntime answers"
        assert report["build"]["why"] == "no tactic"
        assert session.health().reasons == (f"a fallback is running: {report['why']}",)


def test_an_engine_that_fails_its_self_test_never_answers(
    slow: SlowRuntime, bundle: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with background(bundle) as session:
        slow.wait_begun()

        def fail(*_: Any) -> dict[str, float]:
            raise edgebm.errors.SelfTestFailed("other answers")

        monkeypatch.setattr("edgebm.runtime.start.self_test", fail)
        slow.go.set()
        wait_until(lambda: state(session) == "failed")
        assert asked(session) == 1
        assert "other answers" in session.report()["why"]


def test_closing_stops_the_build(slow: SlowRuntime, bundle: Path) -> None:
    session = background(bundle)
    slow.wait_begun()
    session.close()
    assert slow.ended.is_set()
    assert state(session) == "cancelled"
    with pytest.raises(Closed):
        asked(session)
    assert not [t for t in threading.enumerate() if t.name == "edgebm-build"]


def test_a_session_that_is_forgotten_stops_its_build(slow: SlowRuntime, bundle: Path) -> None:
    session = background(bundle)
    slow.wait_begun()
    del session
    gc.collect()
    assert slow.ended.wait(LONG_S)


def test_a_build_that_ends_after_close_is_given_back(slow: SlowRuntime, bundle: Path) -> None:
    """The engine is there, and the session is not any more."""
    with background(bundle) as session:
        slow.wait_begun()
        late = edgebm.load(bundle, "onnxruntime")
    assert session.go_over_to(late) is False
    with pytest.raises(Closed):
        asked(late)


def test_no_call_fails_or_is_mixed_while_the_engine_changes(
    slow: SlowRuntime, bundle: Path
) -> None:
    with background(bundle) as session:
        slow.wait_begun()
        found: list[list[float]] = [[], [], []]
        stop = threading.Event()

        def call(mine: list[float], size: int) -> None:
            while not stop.is_set():
                mine.append(asked(session, size))

        threads = [
            threading.Thread(target=call, args=(mine, size))
            for mine, size in zip(found, (2, 2, 3), strict=True)
        ]
        for thread in threads:
            thread.start()
        wait_until(lambda: all(found))
        slow.go.set()
        wait_until(lambda: all(mine[-1] == 2 for mine in found))
        stop.set()
        for thread in threads:
            thread.join(LONG_S)
        for mine in found:
            assert mine == sorted(mine), "never back to the old engine"
            assert set(mine) == {1, 2}
        total = sum(map(len, found))
        assert session.health().calls == total


def test_streams_stay_with_the_engine_that_they_began_with(
    slow: SlowRuntime, bundle: Path
) -> None:
    x = np.zeros(2, np.float32)
    with background(bundle) as session, session.stream() as old:
        assert old.step(x)["who"] == 1
        saved = old.snapshot()
        slow.go.set()
        wait_until(lambda: state(session) == "done")
        assert old.step(x)["y"].tolist() == [2, 2]  # its state is 1
        assert old.step(np.zeros(3, np.float32))["who"] == 1  # a new shape, too
        with session.stream() as new:
            assert new.step(x)["who"] == 2
            with pytest.raises(edgebm.errors.StateError, match="another model"):
                new.restore(saved)
        session.close()
        with pytest.raises(Closed):
            old.step(x)


def test_a_frame_loop_goes_over_between_two_frames(slow: SlowRuntime, bundle: Path) -> None:
    frame = {"x": np.zeros(2, np.float32), "h": np.zeros(1, np.float32)}
    with background(bundle) as session, session.pipeline(drop="block") as loop:
        for expected in (1, 2):
            loop.push(frame)
            result = loop.get(LONG_S)
            assert result is not None
            assert result.outputs is not None
            assert result.outputs["who"] == expected
            slow.go.set()
            wait_until(lambda: state(session) == "done")


def test_the_old_engine_goes_at_once_where_no_stream_is_on_it(
    slow: SlowRuntime, bundle: Path
) -> None:
    """Without the garbage collector, which programs with deadlines switch off."""
    gc.collect()
    gc.disable()
    try:
        with background(bundle) as session:
            asked(session)
            asked(session, size=5)
            stream = session.stream()
            stream.step(np.zeros(2, np.float32))
            (engine,) = slow.others
            slow.go.set()
            wait_until(lambda: state(session) == "done")
            assert engine() is not None
            stream.close()
            del stream
            wait_until(lambda: engine() is None)
    finally:
        gc.enable()


def test_a_deadline_is_kept_by_either_engine(slow: SlowRuntime, bundle: Path) -> None:
    feeds = {"x": np.zeros(2, np.float32), "h": np.zeros(1, np.float32)}
    before = set(threading.enumerate())
    with background(bundle) as session:
        assert session.run(feeds, deadline_ms=10_000)["who"] == 1
        slow.go.set()
        wait_until(lambda: state(session) == "done")
        assert session.run(feeds, deadline_ms=10_000)["who"] == 2
        new = set(threading.enumerate()) - before
        assert sum(thread.name == "edgebm-deadlines" for thread in new) == 1


@pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")
def test_a_forked_child_has_no_build(slow: SlowRuntime, bundle: Path) -> None:
    with background(bundle) as session:
        slow.wait_begun()
        if (child := os.fork()) == 0:
            try:
                session.close()
                os._exit(0 if session.report()["build"] is None else 1)
            finally:
                os._exit(2)
        assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
        assert state(session) == "running"


def test_what_is_asked_for_must_make_sense(bundle: Path) -> None:
    with pytest.raises(UsageError, match="one target"):
        edgebm.load(bundle, "onnxruntime", build="background")
    with pytest.raises(UsageError, match="never, wait, background"):
        edgebm.load(bundle, build="later")  # type: ignore[arg-type]
    for wrong in ({"limit_s": 0}, {"limit_s": True}, {"workspace_bytes": 0}):
        with pytest.raises(UsageError):
            BuildRules(**wrong)  # type: ignore[arg-type]
    assert {"tensorrt"} == session_module.BUILT_SLOWLY
