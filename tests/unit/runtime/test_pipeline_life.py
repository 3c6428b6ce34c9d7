"""How pipelines deliver and how they end: callbacks, event loops, closing, hanging models."""

from __future__ import annotations

import asyncio
import gc
import threading
import time
import weakref
from typing import Any

import pytest
from gated_engine import LONG_S, gated_session, x

from edgebm.errors import Busy, Closed, ResourceError, UsageError
from edgebm.runtime.frames import FrameCounts, FrameResult
from edgebm.runtime.pipeline import Pipeline


def test_a_callback_gets_every_result_in_order() -> None:
    session, _ = gated_session(2)
    seen: list[FrameResult] = []
    with session.pipeline(2, "block", on_result=seen.append) as pipeline:
        for k in range(50):
            pipeline.push(x(k) if k != 7 else None, key=k)
        assert pipeline.close(drain=True, timeout_s=LONG_S)
        assert [r.key for r in seen] == list(range(50))
        assert [r.key for r in seen if not r.ok] == [7]
        assert pipeline.counts == FrameCounts(50, 49, 1, 0, 0, 0, 0, 0)
        for fetch in (pipeline.poll, pipeline.get, lambda: list(pipeline)):
            with pytest.raises(UsageError, match="go to on_result"):
                fetch()


@pytest.mark.row(49)
def test_an_exception_in_a_callback_is_told_and_counted(monkeypatch: pytest.MonkeyPatch) -> None:
    """Row 49 of the fault table."""
    told: list[Any] = []
    monkeypatch.setattr(threading, "excepthook", lambda args: told.append(args.exc_value))
    session, _ = gated_session(2)
    seen = []

    def callback(result: FrameResult) -> None:
        seen.append(result.seq)
        if result.seq == 3:
            raise SystemExit("a callback must not end the loop")
        if result.seq % 2:
            raise ValueError(f"no use for {result.seq}")

    with session.pipeline(2, "block", on_result=callback) as pipeline:
        for k in range(10):
            pipeline.push(x(k))
        assert pipeline.close(drain=True, timeout_s=LONG_S)
        assert seen == list(range(10))
        assert [str(error) for error in told] == ["no use for 1"]
        assert pipeline.counts == FrameCounts(10, 10, 0, 0, 0, 0, 0, 5)


@pytest.mark.row(49)
def test_a_thread_that_dies_ends_the_pipeline_and_says_why(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    calls = []

    def hook(args: Any) -> None:
        calls.append(args.exc_value)
        if len(calls) == 1:
            raise OSError("no space left for the log")

    monkeypatch.setattr(threading, "excepthook", hook)
    session, _ = gated_session(2)

    def callback(_: FrameResult) -> None:
        raise ValueError

    with session.pipeline(on_result=callback) as pipeline:
        pipeline.push(x(1))
        assert pipeline._worker.join(LONG_S)
        with pytest.raises(Closed, match="no space left for the log"):
            pipeline.push(x(2))
        counts = pipeline.counts
        assert (counts.pushed, counts.waiting) == (1, 0)
    assert [type(error) for error in calls] == [ValueError, OSError]


def test_a_callback_neither_waits_for_itself_nor_keeps_its_pipeline_open() -> None:
    session, gate = gated_session(2)
    found: list[Any] = []
    pipelines: list[Pipeline] = []

    def callback(result: FrameResult) -> None:
        (pipeline,) = pipelines
        if result.seq == 0:
            try:
                pipeline.push(x(9))
            except Busy as error:
                found.append(error)
            found.append(pipeline.close())

    pipelines.append(session.pipeline(1, "block", on_result=callback))
    gate.close()
    pipelines[0].push(x(0))
    gate.wait_entered()
    pipelines[0].push(x(1))
    gate.open()
    assert pipelines[0]._worker.join(LONG_S)
    assert isinstance(found[0], Busy)
    assert found[1] is False
    assert pipelines[0].close()
    assert pipelines[0].counts == FrameCounts(2, 1, 0, 1, 0, 0, 0, 0)


def test_close_ends_those_who_wait_and_leaves_results_to_fetch() -> None:
    session, gate = gated_session(2)
    pipeline = session.pipeline(2, "block")
    pipeline.push(x(0))
    gate.wait_entered()
    while not pipeline._queue._ready:
        time.sleep(0.001)
    gate.close()
    for k in range(1, 4):
        pipeline.push(x(k), timeout_s=LONG_S)
    failures: list[BaseException] = []

    def push() -> None:
        try:
            pipeline.push(x(4))
        except Closed as error:
            failures.append(error)

    pushing = threading.Thread(target=push)
    pushing.start()
    while not pipeline._pushing.locked():
        time.sleep(0.001)
    closing = threading.Thread(target=pipeline.close, kwargs={"timeout_s": LONG_S})
    closing.start()
    pushing.join(LONG_S)
    assert len(failures) == 1
    gate.open()
    closing.join(LONG_S)
    assert pipeline.close()
    assert [r.seq for r in pipeline] == [0, 1]
    assert pipeline.counts == FrameCounts(4, 2, 0, 2, 0, 0, 0, 0)
    assert list(pipeline) == []
    for call in (pipeline.poll, pipeline.get, lambda: pipeline.push(x(1))):
        with pytest.raises(Closed, match="the pipeline is closed"):
            call()


def test_close_drains_if_asked() -> None:
    session, gate = gated_session(2)
    with session.pipeline(3) as pipeline:
        gate.close()
        for k in range(3):
            pipeline.push(x(k))
        gate.open()
        assert pipeline.close(drain=True, timeout_s=LONG_S)
    assert [(r.seq, r.ok) for r in pipeline] == [(0, True), (1, True), (2, True)]


@pytest.mark.parametrize("drain", [True, False])
def test_a_model_that_hangs_keeps_nobody_waiting(drain: bool) -> None:
    session, gate = gated_session(2)
    pipeline = session.pipeline()
    ended = threading.Event()

    def consume() -> None:
        assert list(pipeline) == []
        ended.set()

    threading.Thread(target=consume, daemon=True).start()
    gate.close()
    pipeline.push(x(0))
    gate.wait_entered()
    pipeline.push(x(1))
    assert pipeline.close(drain=drain, timeout_s=0.05) is False
    assert ended.wait(LONG_S)
    counts = pipeline.counts
    assert counts == FrameCounts(2, 0, 0, 2, 0, 0, 0, 0)
    gate.open()
    assert pipeline.close(timeout_s=LONG_S)
    assert pipeline.counts == counts


@pytest.mark.parametrize("drop", ["oldest", "newest", "block"])
def test_frames_of_a_closed_session_fail_and_the_loop_ends(drop: Any) -> None:
    session, gate = gated_session(2)
    pipeline = session.pipeline(2, drop)
    gate.close()
    pipeline.push(x(0))
    gate.wait_entered()
    pipeline.push(x(1))
    pipeline.push(x(2))
    session.close()
    gate.open()
    first, *others = list(pipeline)
    assert first.ok
    assert [type(r.error) for r in others] == [Closed, Closed]
    with pytest.raises(Closed, match="the session is closed"):
        pipeline.push(x(3))
    with pytest.raises(Closed):
        session.pipeline()
    assert pipeline.close()
    assert pipeline.counts == FrameCounts(3, 1, 2, 0, 0, 0, 0, 0)


def test_a_pipeline_that_is_forgotten_ends_its_thread() -> None:
    session, _ = gated_session(2)
    pipeline = session.pipeline()
    pipeline.push(x(1))
    assert pipeline.get(LONG_S) is not None
    worker, gone = pipeline._worker, weakref.ref(pipeline)
    del pipeline
    gc.collect()
    assert gone() is None
    assert worker.join(LONG_S)


def test_without_threads_there_is_no_pipeline(monkeypatch: pytest.MonkeyPatch) -> None:
    """Row 51 of the fault table."""

    def start(_: object) -> None:
        raise RuntimeError("can't start new thread")

    session, _ = gated_session(2)
    monkeypatch.setattr(threading.Thread, "start", start)
    with pytest.raises(ResourceError, match="can't start new thread"):
        session.pipeline()


def test_results_are_awaited_in_an_event_loop() -> None:
    session, _ = gated_session(2)

    async def main(pipeline: Pipeline) -> list[int]:
        async def produce() -> None:
            for k in range(30):
                pipeline.push(x(k), key=k)
                while pipeline.counts.waiting > 1:
                    await asyncio.sleep(0.001)
            await asyncio.to_thread(pipeline.close, drain=True)

        producer = asyncio.ensure_future(produce())
        seen = [result.seq async for result in pipeline]
        await producer
        with pytest.raises(Closed):
            await pipeline.get_async()
        return seen

    with session.pipeline(2) as pipeline:
        assert asyncio.run(main(pipeline)) == list(range(30))
        assert pipeline._queue._wakes == []


def test_a_cancelled_wait_loses_no_result() -> None:
    session, gate = gated_session(2)
    seen: list[int] = []

    async def main(pipeline: Pipeline) -> None:
        gate.close()
        pipeline.push(x(0))
        waits = [asyncio.ensure_future(pipeline.get_async()) for _ in range(3)]
        await asyncio.sleep(0.01)
        waits[0].cancel()
        gate.open()
        await asyncio.sleep(0.05)
        waits[1].cancel()
        pipeline.push(x(1))
        await asyncio.wait(waits[2:], timeout=0.5)
        waits[2].cancel()
        ends = await asyncio.gather(*waits, return_exceptions=True)
        seen.extend(end.seq for end in ends if isinstance(end, FrameResult))

    with session.pipeline() as pipeline:
        asyncio.run(main(pipeline))
        while len(seen) < 2:
            result = pipeline.get(LONG_S)
            assert result is not None
            seen.append(result.seq)
        assert sorted(seen) == [0, 1]
        assert pipeline.counts == FrameCounts(2, 2, 0, 0, 0, 0, 0, 0)
        assert pipeline._queue._wakes == []


def test_an_event_loop_that_is_closed_meanwhile_harms_nobody() -> None:
    session, gate = gated_session(2)
    with session.pipeline() as pipeline:
        gate.close()
        pipeline.push(x(0))
        loop = asyncio.new_event_loop()
        waiting = loop.create_task(pipeline.get_async())
        loop.run_until_complete(asyncio.sleep(0))
        loop.close()
        gate.open()
        result = pipeline.get(LONG_S)
        assert result is not None
        assert result.seq == 0
        pipeline.push(x(1))
        result = pipeline.get(LONG_S)
        assert result is not None
        assert result.seq == 1
        waiting._log_destroy_pending = False  # type: ignore[attr-defined]
        waiting.get_coro().close()  # type: ignore[union-attr]
