"""An engine that is built behind a session, which goes over to it, or does not."""

from __future__ import annotations

import gc
import os
import threading
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from gated_engine import LONG_S, wait_until
from slow_engine import BOTH, RUNTIME, SlowRuntime, asked, state

import edgebm
from edgebm.errors import BackendFailed, Closed, SelfTestFailed, StateError


def background(bundle: Path, **options: Any) -> edgebm.Session:
    return edgebm.load(bundle, BOTH, build="background", cache=False, **options)


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


def test_a_build_that_is_interrupted_has_failed(slow: SlowRuntime, bundle: Path) -> None:
    """Ctrl-C ends the process that builds, too."""
    slow.error = KeyboardInterrupt()
    slow.go.set()
    with background(bundle) as session:
        wait_until(lambda: state(session) == "failed")
        assert "KeyboardInterrupt" in session.report()["why"]
        assert asked(session) == 1


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
            raise SelfTestFailed("other answers")

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
            with pytest.raises(StateError, match="another model"):
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
