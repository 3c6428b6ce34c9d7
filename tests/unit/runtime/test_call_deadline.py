"""Calls that end in time, are not started, are stopped, or come late."""

from __future__ import annotations

import threading
import time
from pathlib import Path

import numpy as np
import pytest
from echo_engine import EchoRequest, echo
from graphs import random_model

import edgebm
from edgebm.bundle_writer import write_bundle
from edgebm.errors import BackendFailed, DeadlineExceeded, UsageError
from edgebm.runtime.deadline import Deadline, Watchdog
from edgebm.spec import EngineConfig, Manifest, TensorSpec, Variant

X = TensorSpec("x", "float32", (1,))
ONE = np.ones(1, np.float32)


class Sleeper(EchoRequest):
    """Answers after a while; `cancel` ends the wait, and the call with an error."""

    seconds = 0.05

    def infer(self) -> None:
        time.sleep(self.seconds)
        super().infer()


class Stoppable(Sleeper):
    def __init__(self, *args: object) -> None:
        super().__init__(*args)  # type: ignore[arg-type]
        self._stop = threading.Event()

    def cancel(self) -> None:  # type: ignore[override]
        self._stop.set()

    def infer(self) -> None:
        if self._stop.wait(20):
            raise BackendFailed("terminated")


def test_a_call_in_time_is_not_late() -> None:
    one, _ = echo(X)
    answer = one.run(ONE, deadline_ms=60_000)
    assert not answer.late


def test_what_cannot_be_stopped_comes_late_and_says_so() -> None:
    one, engine = echo(X, request=Sleeper)
    answer = one.run(ONE, deadline_ms=10)
    assert answer.late
    np.testing.assert_array_equal(answer["x_out"], -ONE)
    one.run(ONE)
    assert len(engine.requests) == 1


def test_a_call_is_stopped_and_its_request_is_not_used_again() -> None:
    one, engine = echo(X, request=Stoppable)
    for _ in range(3):
        with pytest.raises(DeadlineExceeded, match="stopped after 20 ms") as caught:
            one.run(ONE, deadline_ms=20)
        assert caught.value.details["elapsed_ms"] >= 20
        assert isinstance(caught.value.__cause__, BackendFailed)
    assert len(engine.requests) == 3


def test_a_failure_of_its_own_stays_one() -> None:
    class Broken(Stoppable):
        def infer(self) -> None:
            raise BackendFailed("no memory")

    one, _ = echo(X, request=Broken)
    with pytest.raises(BackendFailed, match="no memory"):
        one.run(ONE, deadline_ms=60_000)


def test_each_of_many_calls_is_stopped_at_its_own_time() -> None:
    watchdog = Watchdog()
    started = time.perf_counter()
    stopped: dict[int, float] = {}
    events = [threading.Event() for _ in range(3)]

    def stop(index: int) -> None:
        stopped[index] = time.perf_counter() - started
        events[index].set()

    keys = [
        watchdog.watch(started + seconds, lambda index=index: stop(index))
        for index, seconds in enumerate((0.2, 0.05, 30.0))
    ]
    assert events[0].wait(20)
    assert events[1].wait(20)
    assert stopped[0] >= 0.2
    assert stopped[1] >= 0.05
    assert [watchdog.forget(key) for key in keys] == [True, True, False]
    assert [watchdog.forget(key) for key in keys] == [False] * 3
    watchdog.close()


def test_time_that_is_over_starts_nothing() -> None:
    one, engine = echo(X)
    with pytest.raises(DeadlineExceeded, match="not started"):
        one.run(ONE, deadline_ms=1e-9)
    for nothing in (0, -1, float("nan")):
        with pytest.raises(DeadlineExceeded, match="not started"):
            Deadline(nothing)
    assert not engine.requests
    for wrong in ("20", True, None):
        with pytest.raises(UsageError, match="a number is expected"):
            Deadline(wrong)


@pytest.mark.row(17)
def test_onnxruntime_stops_a_call_and_the_session_goes_on(tmp_path: Path) -> None:
    steps = 1500
    text = "".join(f"h{k + 1} = MatMul(h{k}, w)\n" for k in range(steps))
    model = random_model(
        f"g (float[64,256] h0) => (float[64,256] h{steps}) {{ {text} }}", w=(256, 256)
    )
    io = TensorSpec("h0", "float32", (64, 256)), TensorSpec(f"h{steps}", "float32", (64, 256))
    folder = "variants/any/onnxruntime"
    variant = Variant(
        "any", "onnxruntime", "f32", {"model.onnx": f"{folder}/model.onnx"}, EngineConfig(), "1"
    )
    manifest = Manifest("slow", "0", io[:1], io[1:], (variant,))
    path = write_bundle(
        tmp_path / "slow.edgebm", manifest, {f"{folder}/model.onnx": model.to_bytes()}
    )
    x = np.zeros((64, 256), np.float32)
    with edgebm.load(path) as session:
        with pytest.raises(DeadlineExceeded, match="stopped after 5 ms"):
            session.run(x, deadline_ms=5)
        answer = session.run(x, deadline_ms=600_000)
        assert not answer.late
        np.testing.assert_array_equal(answer[f"h{steps}"], x)
