"""What becomes of single frames: bad ones, late ones, repeated ones, and their copies."""

from __future__ import annotations

import gc
import time
import weakref
from collections.abc import Iterator, Mapping
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from gated_engine import gated_session, got, push_and_finish, wait_until, x

from edgebm.errors import (
    BackendFailed,
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
from edgebm.runtime.frames import FrameCounts

HOUR_NS = 3600 * 10**9


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


@pytest.mark.row(40)
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


@pytest.mark.row(37)
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


def test_a_call_that_can_be_stopped_is_stopped_at_the_deadline_of_its_frame() -> None:
    session, gate = gated_session(2)
    gate.can_cancel = True
    with session.pipeline(deadline_ms=200) as pipeline:
        gate.close()
        begun = False
        while not begun:  # on a busy machine the thread may come too late to begin
            pipeline.push(x(0))
            result = got(pipeline)
            assert isinstance(result.error, DeadlineExceeded)
            assert (result.late, result.outputs) == (True, None)
            begun = result.t_start_ns is not None
    assert gate.is_open


@pytest.mark.row(50)
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
