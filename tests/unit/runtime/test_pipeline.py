"""Which frames a pipeline answers, what it says about the others, and how it counts them."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
from gated_engine import LONG_S, gated_session, got, push_and_finish, wait_until, x

from edgebm.errors import Busy, UsageError
from edgebm.runtime.frames import FrameCounts, FrameResult
from edgebm.runtime.pipeline import Pipeline


def total(counts: FrameCounts) -> int:
    return counts.answered + counts.failed + counts.dropped + counts.waiting


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


@pytest.mark.row(55)
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


@pytest.mark.row(55)
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


@pytest.mark.row(55)
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
