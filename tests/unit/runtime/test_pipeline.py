"""Which frames a pipeline answers, what it says about the others, and how it counts them."""

from __future__ import annotations

import gc
import threading
import time
import weakref
from collections.abc import Iterator, Mapping
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from gated_engine import Gate, gated_session

from edgebm.errors import (
    BackendFailed,
    Busy,
    DeadlineExceeded,
    EdgebmError,
    InputDType,
    InputNonFinite,
    InputPort,
    InputShape,
    InputType,
    ResourceError,
    UsageError,
)
from edgebm.runtime import frame_buffers
from edgebm.runtime.frames import FrameCounts, FrameResult
from edgebm.runtime.pipeline import Pipeline

LONG_S = 60.0
HOUR_NS = 3600 * 10**9


def x(value: float) -> np.ndarray[Any, Any]:
    return np.full(2, value, np.float32)


def got(pipeline: Pipeline) -> FrameResult:
    result = pipeline.get(LONG_S)
    assert result is not None
    return result


def total(counts: FrameCounts) -> int:
    return counts.answered + counts.failed + counts.dropped + counts.waiting


def wait_until(condition: Any) -> None:
    for _ in range(6000):
        if condition():
            return
        time.sleep(0.01)
    raise AssertionError("it never came about")


def push_and_finish(pipeline: Pipeline, gate: Gate, *values: float) -> None:
    """Each frame's result is there before the next frame is pushed."""
    for value in values:
        pipeline.push(x(value))
        gate.wait_entered()
        wait_until(lambda: pipeline._queue._running is None)


def test_frames_are_answered_in_order_with_what_came_with_them() -> None:
    session, _ = gated_session(2)
    with session.pipeline() as pipeline:
        for k in range(20):
            assert pipeline.push({"x": x(k)}, key=f"frame {k}", stamp_ns=7 * k) == k
            result = got(pipeline)
            assert result.outputs is not None
            np.testing.assert_array_equal(result.outputs["y"], -x(k))
            assert (result.seq, result.key, result.stamp_ns) == (k, f"frame {k}", 7 * k)
            assert result.ok
            assert (result.error, result.late, result.dropped_before) == (None, False, 0)
            assert result.t_start_ns is not None
            assert result.t_in_ns <= result.t_start_ns <= result.t_end_ns <= time.monotonic_ns()
        assert pipeline.poll() == []
        assert pipeline.counts == FrameCounts(20, 20, 0, 0, 0, 0, 0, 0)


@pytest.mark.parametrize("depth", [1, 2, 5])
def test_oldest_keeps_the_newest_results_of_a_slow_consumer(depth: int) -> None:
    session, gate = gated_session(2)
    with session.pipeline(depth) as pipeline:
        push_and_finish(pipeline, gate, *range(10))
        assert pipeline.counts == FrameCounts(10, 0, 0, 10 - depth, depth, 0, 0, 0)
        results = pipeline.poll()
        assert [r.seq for r in results] == list(range(10 - depth, 10))
        assert [r.dropped_before for r in results] == [10 - depth] + [0] * (depth - 1)
        assert pipeline.counts == FrameCounts(10, depth, 0, 10 - depth, 0, 0, 0, 0)


def test_oldest_keeps_the_newest_frames_of_a_slow_model() -> None:
    session, gate = gated_session(2)
    with session.pipeline(2, "oldest") as pipeline:
        gate.close()
        pipeline.push(x(0))
        gate.wait_entered()
        for k in range(1, 6):
            pipeline.push(x(k))
        assert pipeline.counts == FrameCounts(6, 0, 0, 3, 3, 0, 0, 0)
        gate.open()
        wait_until(lambda: len(pipeline._queue._ready) == 2)
        results = pipeline.poll()
        assert [(r.seq, r.dropped_before) for r in results] == [(4, 4), (5, 0)]
        assert [r.outputs["y"][0] for r in results if r.outputs] == [-4, -5]


def test_oldest_never_drops_the_newest_result() -> None:
    session, gate = gated_session(2)
    with session.pipeline(2) as pipeline:
        push_and_finish(pipeline, gate, 0)
        gate.close()
        for k in range(1, 9):
            pipeline.push(x(k))
        (result,) = pipeline.poll()
        assert result.seq == 0
        gate.open()


def test_newest_keeps_what_came_first() -> None:
    session, gate = gated_session(2)
    with session.pipeline(2, "newest") as pipeline:
        gate.close()
        pipeline.push(x(0), key="a")
        gate.wait_entered()
        assert [pipeline.push(x(k), key="a") for k in range(1, 6)] == [1, 2, 3, 4, 5]
        assert pipeline.counts == FrameCounts(6, 0, 0, 3, 3, 5, 0, 0)
        gate.open()
        assert [got(pipeline).seq for _ in range(3)] == [0, 1, 2]
        pipeline.push(x(6), key="b")
        last = got(pipeline)
        assert (last.seq, last.dropped_before, last.repeated) == (6, 3, False)


@pytest.mark.parametrize("drop", ["newest", "block"])
def test_results_that_nobody_fetches_hold_the_model_back(drop: Any) -> None:
    session, gate = gated_session(2)
    with session.pipeline(2, drop) as pipeline:
        for k in range(3):
            pipeline.push(x(k))
            gate.wait_entered()
        pipeline.push(x(3))
        pipeline.push(x(4))
        # Two results, one in the thread's hand, two frames that wait.
        wait_until(lambda: len(pipeline._queue._ready) == 2)
        if drop == "block":
            with pytest.raises(Busy, match="2 frames wait") as caught:
                pipeline.push(x(5), timeout_s=0.01)
            assert "fetch results" in caught.value.hint
            assert pipeline.counts == FrameCounts(5, 0, 0, 0, 5, 0, 0, 0)
        else:
            pipeline.push(x(5))
            assert pipeline.counts == FrameCounts(6, 0, 0, 1, 5, 0, 0, 0)
        assert not gate._entered.acquire(blocking=False)
        assert [got(pipeline).seq for _ in range(5)] == [0, 1, 2, 3, 4]


@pytest.mark.parametrize("depth", [1, 3])
def test_block_answers_every_frame_of_a_loop_that_pushes_and_polls(depth: int) -> None:
    session, _ = gated_session(2)
    results = []
    with session.pipeline(depth, "block") as pipeline:
        for k in range(200):
            pipeline.push(x(k), timeout_s=LONG_S)
            results += pipeline.poll()
        assert pipeline.close(drain=True, timeout_s=LONG_S)
        results += list(pipeline)
        assert pipeline.counts == FrameCounts(200, 200, 0, 0, 0, 0, 0, 0)
    assert [r.seq for r in results] == list(range(200))
    assert [r.outputs["y"][0] for r in results if r.outputs] == [-k for k in range(200)]


class Unreadable(Mapping[str, Any]):
    def __getitem__(self, name: str) -> Any:
        raise RuntimeError("the camera is gone")

    def __iter__(self) -> Iterator[str]:
        return iter(["x"])

    def __len__(self) -> int:
        return 1


@pytest.mark.parametrize("drop", ["oldest", "newest", "block"])
def test_a_bad_frame_is_a_failed_result_and_the_loop_goes_on(drop: Any) -> None:
    session, _ = gated_session(2)
    holed = np.array([1, np.nan], np.float32)
    cases: list[tuple[Any, type[EdgebmError], str]] = [
        (None, InputType, "NoneType"),
        ([1.0, 2.0], InputType, "list"),
        (x(1).astype(np.float64), InputDType, "float64"),
        (x(1).astype(">f4"), InputDType, ">f4"),
        (np.zeros(3, np.float32), InputShape, r"\[3\]"),
        (holed, InputNonFinite, "NaN"),
        ({"X": x(1)}, InputPort, "missing inputs"),
        ({}, InputPort, "missing inputs"),
        (Unreadable(), EdgebmError, "RuntimeError: the camera is gone"),
    ]
    with session.pipeline(2, drop) as pipeline:
        for k, (inputs, kind, text) in enumerate(cases):
            pipeline.push(inputs, key=k)
            pipeline.push(x(k))
            bad, good = got(pipeline), got(pipeline)
            assert type(bad.error) is kind
            with pytest.raises(kind, match=text):
                raise bad.error
            assert (bad.ok, bad.outputs, bad.key, bad.dropped_before) == (False, None, k, 0)
            assert bad.t_in_ns <= bad.t_end_ns
            assert good.ok
        counts = pipeline.counts
        assert (counts.failed, counts.answered, counts.dropped) == (9, 9, 0)


@pytest.mark.parametrize(
    ("raised", "kind"),
    [
        (BackendFailed("broken"), BackendFailed),
        (MemoryError(), ResourceError),
        (ZeroDivisionError("a bug"), EdgebmError),
    ],
)
def test_whatever_the_model_raises_is_the_error_of_its_frame(
    raised: Exception, kind: type[EdgebmError]
) -> None:
    session, gate = gated_session(2)

    def fail() -> None:
        raise raised

    with session.pipeline() as pipeline:
        gate.before = fail
        pipeline.push(x(1))
        result = got(pipeline)
        assert type(result.error) is kind
        assert result.t_start_ns is not None
        if kind is EdgebmError:
            assert str(result.error) == "ZeroDivisionError: a bug"
            assert "in fail" in result.error.details["traceback"]
        gate.before = lambda: None
        pipeline.push(x(2))
        assert got(pipeline).ok


def test_a_failed_frame_is_gone_without_the_garbage_collector() -> None:
    session, gate = gated_session(2)

    def fail() -> None:
        try:
            int("the bus")
        except ValueError as cause:
            raise BackendFailed("broken") from cause

    gate.before = fail
    gc.collect()
    gc.disable()
    try:
        with session.pipeline() as pipeline:
            for inputs in (x(1), None):
                pipeline.push(inputs)
                result = got(pipeline)
                error = weakref.ref(result.error)
                assert error() is not None
                del result
                wait_until(lambda error=error: error() is None)
    finally:
        gc.enable()


def test_inputs_are_copied_when_they_are_pushed() -> None:
    """Row 40 of the fault table: the caller changes the array while the frame waits."""
    session, gate = gated_session(2)
    with session.pipeline() as pipeline:
        gate.close()
        pipeline.push(x(0))
        gate.wait_entered()
        mine = x(5)
        pipeline.push(mine)
        mine[:] = np.nan
        gate.open()
        got(pipeline)
        result = got(pipeline)
        assert result.outputs is not None
        np.testing.assert_array_equal(result.outputs["y"], -x(5))


def test_the_copies_are_made_in_the_same_few_arrays(monkeypatch: pytest.MonkeyPatch) -> None:
    made: list[tuple[int, ...]] = []

    def empty(shape: tuple[int, ...], dtype: Any) -> np.ndarray[Any, Any]:
        made.append(shape)
        return np.empty(shape, dtype)

    monkeypatch.setattr(frame_buffers, "np", SimpleNamespace(empty=empty))
    session, gate = gated_session("n", axes={"n": (1, 9)})
    with session.pipeline(2) as pipeline:
        push_and_finish(pipeline, gate, *range(50))
        assert made == [(2,)] * 4
        gate.close()
        for k in range(50):
            pipeline.push(x(k))
        assert made == [(2,)] * 4
        gate.open()
        made.clear()
        while got(pipeline).seq < 99:
            pass
        # Another size of a free axis: new arrays once, and the old ones are let go.
        for _ in range(5):
            pipeline.push(np.ones(7, np.float32))
            (y,) = (got(pipeline).outputs or {}).values()
            np.testing.assert_array_equal(y, -np.ones(7, np.float32))
        assert made == [(7,)] * 4
        pipeline.push(x(3))
        result = got(pipeline)
        assert result.outputs is not None
        np.testing.assert_array_equal(result.outputs["y"], -x(3))
        assert made == [(7,)] * 4 + [(2,)]


def test_arrays_of_a_fixed_shape_are_made_beforehand(monkeypatch: pytest.MonkeyPatch) -> None:
    session, gate = gated_session(2)
    with session.pipeline(3) as pipeline:
        monkeypatch.setattr(frame_buffers, "np", None)
        push_and_finish(pipeline, gate, *range(5))
        gate.close()
        for k in range(20):
            pipeline.push(x(k))
        gate.open()
        while (result := got(pipeline)).seq < 24:
            pass
        assert result.ok


def test_repeated_frames_are_counted_apart_from_drops() -> None:
    session, _ = gated_session(2)
    keys = [7, 7, 8, None, None, 8, (1, 2), (1, 2), np.int64(3), 3]
    with session.pipeline() as pipeline:
        found = []
        for key in keys:
            pipeline.push(x(1), key=key)
            found.append(got(pipeline))
        told = [r.repeated for r in found]
        assert told == [False, True, False, False, False, False, False, True, False, True]
        assert found[0].gap_ns == 0
        assert all(r.gap_ns > 0 for r in found[1:])
        assert (pipeline.counts.repeated, pipeline.counts.dropped) == (3, 0)
        with pytest.raises(UsageError, match="key is ndarray"):
            pipeline.push(x(1), key=np.zeros(2))
        assert pipeline.counts.pushed == len(keys)


@pytest.fixture
def asleep(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Nanoseconds that the machine has slept, for the clock that counts them."""
    clock, slept = time.clock_gettime_ns, [0]
    monkeypatch.setattr(time, "clock_gettime_ns", lambda kind: clock(kind) + slept[0])
    return slept


def test_a_frame_that_is_too_old_is_not_begun(asleep: list[int]) -> None:
    session, gate = gated_session(2)
    with session.pipeline(deadline_ms=60_000) as pipeline:
        gate.close()
        pipeline.push(x(0))
        gate.wait_entered()
        pipeline.push(x(1))
        asleep[0] = HOUR_NS
        gate.open()
        slow, old = got(pipeline), got(pipeline)
        assert (slow.ok, slow.late) == (True, True)
        assert isinstance(old.error, DeadlineExceeded)
        assert (old.late, old.t_start_ns, old.outputs) == (True, None, None)
        assert old.error.details["age_ms"] > 60_000 == old.error.details["deadline_ms"]
        assert not gate._entered.acquire(blocking=False)
        assert pipeline.counts == FrameCounts(2, 1, 1, 0, 0, 0, 2, 0)


def test_sleep_of_the_machine_counts_as_age_and_shows_as_a_gap(asleep: list[int]) -> None:
    """Row 50 of the fault table: after suspend and resume a frame must not look fresh."""
    session, gate = gated_session(2)
    with session.pipeline(3, deadline_ms=60_000) as pipeline:
        gate.close()
        for k in range(2):
            pipeline.push(x(k))
        asleep[0] = HOUR_NS
        pipeline.push(x(2))
        gate.open()
        _, old, fresh = got(pipeline), got(pipeline), got(pipeline)
        assert isinstance(old.error, DeadlineExceeded)
        assert (fresh.ok, fresh.late) == (True, False)
        assert old.gap_ns < HOUR_NS < fresh.gap_ns


class Traffic:
    """Two producers, a consumer and an observer of the counts, each with pauses of its own."""

    def __init__(self, pipeline: Pipeline, pauses: Iterator[float]) -> None:
        self.pipeline, self.pauses = pipeline, pauses
        self.results: list[FrameResult] = []
        self.wrong: list[FrameCounts] = []
        self._done = threading.Event()

    def run(self) -> None:
        producers = [threading.Thread(target=self._produce, args=(base,)) for base in (0, 1000)]
        others = [threading.Thread(target=each) for each in (self._consume, self._observe)]
        for thread in (*producers, *others):
            thread.start()
        for thread in producers:
            thread.join(LONG_S)
        assert self.pipeline.close(drain=True, timeout_s=LONG_S)
        self._done.set()
        for thread in others:
            thread.join(LONG_S)

    def _produce(self, base: int) -> None:
        for key in range(base, base + 150):
            self.pipeline.push(x(key) if key % 7 else None, key=key, timeout_s=LONG_S)
            time.sleep(next(self.pauses))

    def _consume(self) -> None:
        for result in self.pipeline:
            self.results.append(result)
            time.sleep(2 * next(self.pauses))

    def _observe(self) -> None:
        while not self._done.is_set():
            counts = self.pipeline.counts
            if counts.pushed != total(counts) or counts.waiting > 2 * 3 + 1:
                self.wrong.append(counts)
            time.sleep(5e-4)


@pytest.mark.parametrize("drop", ["oldest", "newest", "block"])
def test_every_frame_is_accounted_for_at_any_moment(drop: Any) -> None:
    """Row 55 of the fault table: producers and consumers of any speed."""
    session, gate = gated_session(2)
    pauses = iter(np.random.default_rng(3).exponential(2e-4, 100_000).tolist())
    gate.before = lambda: time.sleep(next(pauses))
    with session.pipeline(3, drop) as pipeline:
        traffic = Traffic(pipeline, pauses)
        traffic.run()
        counts = pipeline.counts
    assert not traffic.wrong
    assert (counts.pushed, counts.waiting, total(counts)) == (300, 0, 300)
    assert counts.dropped == 0 or drop != "block"
    results = traffic.results
    numbers = [r.seq for r in results]
    assert numbers == sorted(set(numbers))
    assert len(results) == counts.answered + counts.failed
    after_the_last = 300 - 1 - numbers[-1]
    assert sum(r.dropped_before for r in results) + after_the_last == counts.dropped
    answers = {r.key: r.outputs["y"][0] for r in results if r.outputs is not None}
    assert len(answers) == counts.answered
    assert all(answer == -float(str(key)) for key, answer in answers.items())


@pytest.mark.parametrize(
    ("wrong", "match"),
    [
        ({"depth": 0}, "depth is 0"),
        ({"depth": 2.0}, "depth is 2.0"),
        ({"depth": True}, "depth is True"),
        ({"drop": "latest"}, "'oldest', 'newest', 'block'"),
        ({"deadline_ms": 0}, "deadline_ms is 0"),
        ({"deadline_ms": float("nan")}, "deadline_ms is nan"),
        ({"deadline_ms": "20"}, "deadline_ms is '20'"),
        ({"on_result": 3}, "on_result is 3"),
    ],
)
def test_wrong_arguments_are_refused(wrong: dict[str, Any], match: str) -> None:
    session, _ = gated_session(2)
    with pytest.raises(UsageError, match=match):
        session.pipeline(**wrong)


@pytest.mark.parametrize("timeout_s", [-1, float("nan"), "1"])
def test_a_time_to_wait_is_a_time(timeout_s: Any) -> None:
    session, _ = gated_session(2)
    with session.pipeline() as pipeline:
        for call in (
            lambda: pipeline.push(x(1), timeout_s=timeout_s),
            lambda: pipeline.get(timeout_s),
            lambda: pipeline.close(timeout_s=timeout_s),
        ):
            with pytest.raises(UsageError, match="timeout_s is"):
                call()
        assert pipeline.get(0.001) is None
        pipeline.push(x(1))
        assert got(pipeline).seq == 0
