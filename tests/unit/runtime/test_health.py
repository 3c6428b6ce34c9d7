from __future__ import annotations

import json
import os
import threading
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from echo_engine import EchoRequest, echo

from edgebm.errors import (
    BackendFailed,
    DeadlineExceeded,
    InputNonFinite,
    InputShape,
    UsageError,
)
from edgebm.runtime import calls
from edgebm.runtime.calls import RECENT_CALLS, SKIPPED, CallLog
from edgebm.runtime.frames import FrameCounts
from edgebm.runtime.health import Health, Monitor
from edgebm.runtime.session import load
from edgebm.runtime.values import ValueRules
from edgebm.spec import TensorSpec

DATA = Path(__file__).parents[2] / "device" / "data"
X = np.ones(2, np.float32)
SPEC = TensorSpec("x", "float32", (2,))


class Breaking(EchoRequest):
    """Fails while `broken` is set."""

    broken = False

    def infer(self) -> None:
        if self.broken:
            raise BackendFailed("echo failed running: no more echo")
        super().infer()


def frames(pushed: int, dropped: int) -> FrameCounts:
    return FrameCounts(pushed, pushed - dropped, 0, dropped, 0, 0, 0, 0)


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    moved = Clock()
    for module in ("calls", "health"):
        monkeypatch.setattr(f"edgebm.runtime.{module}.time", moved)
    return moved


class Clock:
    def __init__(self) -> None:
        self.now_s = 1000.0

    def perf_counter(self) -> float:
        return self.now_s


def look(monitor: Monitor, *loops: FrameCounts, stale_after_s: float | None = None) -> Health:
    return monitor.look({}, loops, "", stale_after_s)


def test_a_session_that_was_never_called_is_well() -> None:
    session, _ = echo(SPEC)
    health = session.health()
    assert (health.state, health.reasons, health.calls) == ("OK", (), 0)
    assert health.latency is None
    assert health.idle_s >= 0


@pytest.mark.parametrize("form", ["plain", "dict", "out", "deadline"])
def test_every_form_of_a_call_is_counted_once(form: str) -> None:
    session, _ = echo(SPEC)
    arguments: dict[str, Any] = {
        "plain": {},
        "dict": {},
        "out": {"out": {"x_out": np.empty(2, np.float32)}},
        "deadline": {"deadline_ms": 1e6},
    }[form]
    for _ in range(20):
        session.run({"x": X} if form == "dict" else X, **arguments)
    health = session.health()
    assert health.calls == 20
    assert health.latency is not None
    assert health.latency.calls == 20
    assert health.state == "OK"


def test_models_with_several_inputs_are_counted() -> None:
    session, _ = echo(SPEC, TensorSpec("y", "float32", (2,)))
    for _ in range(3):
        session.run(x=X, y=X)
    assert session.health().calls == 3


def test_loading_does_not_count_and_steps_of_streams_do() -> None:
    with load(DATA / "lstm.edgebm", threads=1) as session:
        assert session.health().calls == 0
        with session.stream() as stream:
            frame = {spec.name: np.zeros(spec.shape, spec.dtype) for spec in stream.inputs}
            for _ in range(5):
                stream.step(frame)
            with pytest.raises(InputShape):
                stream.step({name: x[..., :1] for name, x in frame.items()})
        health = session.health()
        assert health.calls == 6
        assert health.failures == {"input_shape": 1}
        assert health.state == "WARN"


def test_a_call_that_raised_is_a_warning_with_its_message() -> None:
    session, _ = echo(SPEC)
    session.run(X)
    for wrong in (np.ones(3, np.float32), np.array([np.nan, 1], np.float32)):
        with pytest.raises((InputShape, InputNonFinite)):
            session.run(wrong)
    health = session.health()
    assert health.state == "WARN"
    assert health.calls == 3
    assert health.failures == {"input_shape": 1, "input_non_finite": 1}
    (reason,) = health.reasons
    assert "2 of 3 calls failed lately, the last one with input_non_finite: input 'x'" in reason


def test_a_runtime_that_fails_is_an_error_until_it_answers_again() -> None:
    session, engine = echo(SPEC, request=Breaking)
    session.run(X)
    Breaking.broken = True
    try:
        with pytest.raises(BackendFailed):
            session.run(X)
        health = session.health()
        assert health.state == "ERROR"
        assert "the runtime failed in the last call: echo failed" in health.reasons[0]
    finally:
        Breaking.broken = False
    session.run(X)
    assert session.health().state == "WARN"
    assert len(engine.requests) == 2


def test_what_is_late_or_odd_is_a_warning_from_one_percent_on() -> None:
    rules = ValueRules(nonfinite="mark")
    session, _ = echo(SPEC, rules=rules)
    odd = np.array([np.inf, 0], np.float32)
    assert session.run(odd).doubts
    health = session.health()
    assert health.doubtful == 1
    assert health.reasons == ("1 of 1 calls lately had odd values in their inputs",)
    for _ in range(99):
        session.run(X)
    assert session.health().state == "OK"
    for _ in range(2):
        with pytest.raises(DeadlineExceeded):
            session.run(X, deadline_ms=0)
    health = session.health()
    assert (health.late, health.failures) == (2, {"deadline_exceeded": 2})
    assert health.reasons == ("2 of 102 calls lately were over their deadline",)


def test_answers_after_their_deadline_are_late() -> None:
    log = CallLog()
    log.answered(0.0)
    log.late()
    tally = log.tally()
    assert (tally.total.calls, tally.total.late, tally.total.failed) == (1, 1, 0)


def test_stale_after_the_time_that_is_given(clock: Clock) -> None:
    monitor = Monitor(Path("/nowhere"))
    clock.now_s += 5
    assert look(monitor).state == "OK"
    assert look(monitor, stale_after_s=5).state == "OK"
    health = look(monitor, stale_after_s=4.9)
    assert (health.state, health.idle_s) == ("STALE", 5)
    assert health.reasons == ("5 s have passed since it was loaded; 4.9 s are allowed",)
    monitor.calls.failed(ValueError("any call counts"))
    clock.now_s += 1
    health = look(monitor, stale_after_s=0.5)
    assert (health.state, health.idle_s) == ("STALE", 1)
    assert health.reasons[0] == "1 s have passed since the last call; 0.5 s are allowed"
    assert len(health.reasons) == 2


@pytest.mark.parametrize("wrong", [0, -1, float("nan"), True, "5"])
def test_a_limit_that_is_no_time(wrong: Any) -> None:
    session, _ = echo(SPEC)
    with pytest.raises(UsageError, match="stale_after_s"):
        session.health(stale_after_s=wrong)


def test_warnings_end_a_minute_after_their_reason(clock: Clock) -> None:
    monitor = Monitor(Path("/nowhere"))
    monitor.calls.failed(ValueError("once"))
    clock.now_s += 59
    assert look(monitor).state == "WARN"
    clock.now_s += 2
    health = look(monitor)
    assert (health.state, health.calls, health.failures) == ("OK", 1, {"ValueError": 1})


def test_frames_are_dropped_lately_or_long_ago(clock: Clock) -> None:
    monitor = Monitor(Path("/nowhere"))
    assert look(monitor, frames(100, 20)).state == "OK"
    clock.now_s += 10
    health = look(monitor, frames(200, 50))
    assert health.reasons == ("30 of 100 frames were dropped lately",)
    assert (health.pushed, health.dropped, health.state) == (200, 50, "WARN")
    clock.now_s += 61
    assert look(monitor, frames(800, 50), frames(200, 10)).state == "OK"
    clock.now_s += 61
    # The loops are gone, and a new one is worse.
    assert look(monitor, frames(10, 5)).reasons == ("5 of 10 frames were dropped lately",)


def test_frame_loops_are_asked_for_what_they_dropped() -> None:
    session, _ = echo(SPEC)
    with session.pipeline(depth=1, drop="newest") as loop:
        loop.push(X)
        assert loop.get(10) is not None
        health = session.health()
    assert (health.pushed, health.dropped, health.calls) == (1, 0, 1)


@pytest.mark.row(61)
def test_the_board_is_watched(tmp_path: Path, clock: Clock) -> None:
    count = tmp_path / "sys/devices/system/cpu/cpu0/thermal_throttle/core_throttle_count"
    zone = tmp_path / "sys/class/thermal/thermal_zone0"
    for path, text in {
        count: "5",
        zone / "temp": "60000",
        zone / "type": "soc",
        zone / "trip_point_0_type": "passive",
        zone / "trip_point_0_temp": "85000",
    }.items():
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    monitor = Monitor(tmp_path)
    assert look(monitor).state == "OK"
    assert look(monitor).board.temperature_c == 60
    count.write_text("6")
    (zone / "temp").write_text("83000")
    clock.now_s += 1
    health = look(monitor)
    assert health.state == "WARN"
    assert "because of heat" in health.reasons[0]
    assert "soc is at 83 C" in health.reasons[1]
    clock.now_s += 120
    (zone / "temp").write_text("60000")
    look(monitor)
    clock.now_s += 61
    assert look(monitor).state == "OK"


def test_a_fallback_is_a_warning() -> None:
    health = Monitor().look({"degraded": True, "why": "openvino: not there"}, (), "", None)
    assert health.state == "WARN"
    assert health.reasons == ("a fallback is running: openvino: not there",)


def test_a_closed_session_is_an_error_and_still_answers() -> None:
    session, _ = echo(SPEC)
    session.run(X)
    session.close()
    health = session.health(stale_after_s=1000)
    assert (health.state, health.calls) == ("ERROR", 1)
    assert health.reasons == ("the session is closed",)


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system cannot fork")
@pytest.mark.filterwarnings("ignore:.*multi-threaded.*fork:DeprecationWarning")
def test_in_a_forked_child_no_lock_of_the_parent_is_touched() -> None:
    session, _ = echo(SPEC)
    session.run(X)
    reader, writer = os.pipe()
    # As a thread of the parent would hold them, which is not there in the child.
    with session._path.calls._lock, session._monitor._lock, session._lock:
        child = os.fork()
        if child == 0:
            try:
                with pytest.raises(Exception, match="parent process"):
                    session.run(X)
                health = session.health()
                os.write(writer, f"{health.state}: {health.reasons[0]}".encode())
            finally:
                os._exit(0)
    os.waitpid(child, 0)
    assert os.read(reader, 1000) == b"ERROR: the session was loaded in the parent process"


def test_all_of_it_is_plain_json() -> None:
    session, _ = echo(SPEC)
    session.run(X)
    plain = json.loads(json.dumps(session.health().to_dict()))
    assert plain["state"] == "OK"
    assert plain["latency"]["calls"] == 1
    assert plain["latency"]["p99_ms"] is None
    assert plain["board"]["hot"] == []


def test_percentiles_are_earned_and_the_newest_calls_are_kept(clock: Clock) -> None:
    log = CallLog()
    for _ in range(2 * RECENT_CALLS):
        log.answered(clock.now_s - 1.0)
    for _ in range(RECENT_CALLS):
        log.answered(clock.now_s - 0.002)
    tally = log.tally()
    assert tally.total.calls == 3 * RECENT_CALLS
    assert tally.latency is not None
    assert tally.latency.calls == RECENT_CALLS
    assert tally.latency.max_ms == pytest.approx(2.0, abs=1e-3)
    assert tally.latency.p99_ms is not None
    assert tally.latency.p999_ms is None
    assert tally.lately.calls == RECENT_CALLS


def test_calls_that_come_often_are_all_counted_and_some_are_timed(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    with load(DATA / "image.edgebm", target="onnxruntime", threads=1) as session:
        image = np.zeros((1, 3, 4, 5), np.float32)
        session.run(image)
        # Whatever this machine is busy with, these calls come often enough.
        monkeypatch.setattr("edgebm.runtime.slots.OFTEN_S", 1e9)
        for _ in range(8 * (SKIPPED + 1)):
            session.run(image)
        health = session.health()
        assert health.calls == 1 + 8 * (SKIPPED + 1)
        assert health.latency is not None
        assert health.latency.calls == 9
        monkeypatch.setattr("edgebm.runtime.slots.OFTEN_S", 0.0)
        for _ in range(20):
            session.run(image)
        latency = session.health().latency
        assert latency is not None
        assert latency.calls == 9 + 20 - SKIPPED


def test_calls_that_were_not_timed_are_seen_by_their_number(clock: Clock) -> None:
    monitor = Monitor(Path("/nowhere"))
    clock.now_s += 10
    assert look(monitor).idle_s == 10
    clock.now_s += 10
    next(monitor.calls.numbers)
    assert look(monitor).idle_s == 10
    clock.now_s += 10
    assert look(monitor, stale_after_s=25).state == "OK"


def test_no_call_is_lost_between_threads() -> None:
    session, _ = echo(SPEC)
    odd = np.ones(3, np.float32)

    def work() -> None:
        for _ in range(500):
            session.run(X)
            with pytest.raises(InputShape):
                session.run(odd)
            session.health()

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    health = session.health()
    assert health.calls == 4000
    assert health.failures == {"input_shape": 2000}


def test_the_log_does_not_grow() -> None:
    log = CallLog()
    for number in range(3 * RECENT_CALLS):
        log.answered(0.0)
        log.failed(ValueError("x" * 10_000 + str(number)))
        log.late()
    assert len(log._recent) == RECENT_CALLS
    assert all(len(events._times_s) <= RECENT_CALLS for events in (log._failed, log._late))
    tally = log.tally()
    assert tally.total.failed == 3 * RECENT_CALLS
    assert tally.failure is not None
    assert len(tally.failure.message) == 300
    assert calls.RECENT_CALLS >= 662  # for p99
