"""Frame loops over real runtimes: the answers of `run`, failures, memory, forks and exits."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import edgebm
from edgebm.errors import Closed, ForkedUse, InputNonFinite, InputShape
from edgebm.runtime.frame_worker import _end_all
from edgebm.runtime.frames import FrameResult
from edgebm.runtime.runner import Session

DATA = Path(__file__).parent / "data"
IMAGES = np.random.default_rng(5).normal(size=(40, 1, 3, 4, 5)).astype(np.float32)
LONG_S = 60.0


@pytest.fixture
def image(runtime: str) -> Iterator[Session]:
    with edgebm.load(DATA / "image.edgebm", target=runtime) as session:
        yield session


def outputs(result: FrameResult | None) -> dict[str, Any]:
    assert result is not None
    assert result.outputs is not None
    return dict(result.outputs)


@pytest.mark.row(40)
def test_a_loop_answers_as_run_does_whatever_becomes_of_the_arrays(image: Session) -> None:
    expected = [image.run(each)["scores"] for each in IMAGES]
    frame = np.empty_like(IMAGES[0])
    results = []
    with image.pipeline(3, "block") as pipeline:
        for k, each in enumerate(IMAGES):
            frame[...] = each
            pipeline.push({"image": frame}, key=k)
            frame.fill(np.nan)
            results += pipeline.poll()
        assert pipeline.close(drain=True, timeout_s=LONG_S)
        results += list(pipeline)
    assert [r.key for r in results] == list(range(len(IMAGES)))
    for result, scores in zip(results, expected, strict=True):
        np.testing.assert_array_equal(outputs(result)["scores"], scores)


def test_a_bad_frame_fails_and_the_next_is_answered(image: Session) -> None:
    holed = IMAGES[1].copy()
    holed[0, 1, 2, 3] = np.inf
    with image.pipeline() as pipeline:
        for bad, kind in ((holed, InputNonFinite), (IMAGES[0][0], InputShape)):
            pipeline.push(bad)
            result = pipeline.get(LONG_S)
            assert result is not None
            assert type(result.error) is kind
            pipeline.push(IMAGES[2])
            scores = outputs(pipeline.get(LONG_S))["scores"]
            np.testing.assert_array_equal(scores, image.run(IMAGES[2])["scores"])


def test_loops_of_one_session_do_not_touch_each_other(image: Session) -> None:
    expected = [image.run(each)["scores"] for each in IMAGES]
    wrong: list[int] = []

    def work(start: int) -> None:
        with image.pipeline(2, "block") as pipeline:
            for k in range(start, start + 200):
                pipeline.push(IMAGES[k % 40])
                scores = outputs(pipeline.get(LONG_S))["scores"]
                if not np.array_equal(scores, expected[k % 40]):
                    wrong.append(k)

    threads = [threading.Thread(target=work, args=(start,)) for start in (0, 13, 29)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(LONG_S)
    assert not wrong


def test_an_event_loop_gets_every_result(image: Session) -> None:
    async def main() -> list[int]:
        with image.pipeline(2) as pipeline:
            seen = []
            for each in IMAGES:
                pipeline.push(each)
                seen.append((await pipeline.get_async()).seq)
            return seen

    assert asyncio.run(main()) == list(range(len(IMAGES)))


def test_closing_the_session_ends_the_loop(runtime: str) -> None:
    session = edgebm.load(DATA / "image.edgebm", target=runtime)
    pipeline = session.pipeline(2)
    seen: list[FrameResult] = []
    consumer = threading.Thread(target=lambda: seen.extend(pipeline))
    consumer.start()
    for each in IMAGES[:5]:
        pipeline.push(each)
    session.close()
    consumer.join(LONG_S)
    assert not consumer.is_alive()
    assert all(r.ok or isinstance(r.error, Closed) for r in seen)
    with pytest.raises(Closed, match="the session is closed"):
        pipeline.push(IMAGES[0])
    counts = pipeline.counts
    assert counts.pushed == counts.answered + counts.failed + counts.dropped == 5


@contextmanager
def locked_elsewhere(*locks: Any) -> Iterator[None]:
    """Another thread, which a forked child does not have, holds the locks."""
    held, done = threading.Event(), threading.Event()

    def hold() -> None:
        with ExitStack() as stack:
            for lock in locks:
                stack.enter_context(lock)
            held.set()
            assert done.wait(LONG_S)

    thread = threading.Thread(target=hold)
    thread.start()
    assert held.wait(LONG_S)
    try:
        yield
    finally:
        done.set()
        thread.join(LONG_S)


@pytest.mark.row(45)
@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system cannot fork")
@pytest.mark.filterwarnings("ignore:.*multi-threaded.*fork:DeprecationWarning")
def test_a_forked_child_is_told_to_load_itself(image: Session) -> None:
    with image.pipeline() as pipeline:
        pipeline.push(IMAGES[0])
        assert pipeline.get(LONG_S) is not None
        with locked_elsewhere(pipeline._pushing, pipeline._queue._lock):
            child = os.fork()
            if child == 0:
                signal.alarm(30)  # a child that waits for a lock is killed
                told = 0
                for use in (
                    lambda: pipeline.push(IMAGES[1]),
                    pipeline.poll,
                    pipeline.get,
                    lambda: next(iter(pipeline)),
                    lambda: asyncio.run(pipeline.get_async()),
                    lambda: pipeline.counts,
                ):
                    try:
                        use()
                    except ForkedUse:
                        told += 1
                pipeline.close()
                pipeline._forgotten()
                _end_all()
                os._exit(told)
            _, status = os.waitpid(child, 0)
        assert os.waitstatus_to_exitcode(status) == 6
        pipeline.push(IMAGES[1])
        assert outputs(pipeline.get(LONG_S))


ENDINGS = {
    "an open loop": "",
    "a loop that nobody fetches from": "[p.push(x) for _ in range(20)]",
    "an exception": "p.push(x); raise SystemExit(3)",
    "a callback that hangs": (
        "q = s.pipeline(on_result=lambda r: (print('in', flush=True), time.sleep(3600)))\n"
        "q.push(x); time.sleep(0.2)"
    ),
    "a consumer that waits": "threading.Thread(target=list, args=(p,), daemon=True).start()",
    # The vendors' own ends, which hang in a forked child, are left out.
    "a child that was forked": (
        "pid = os.fork()\nif not pid: atexit._run_exitfuncs(); os._exit(0)\n"
        "sys.exit(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]))"
    ),
}


@pytest.mark.row(48)
@pytest.mark.parametrize("ending", ENDINGS)
def test_the_interpreter_ends_whatever_the_loop_does(ending: str, runtime: str) -> None:
    """Row 48 of the fault table: a hang shows as a timeout."""
    script = (
        "import atexit, os, sys, threading, time, warnings\nwarnings.simplefilter('ignore')\n"
        "import edgebm, numpy as np\n"
        f"s = edgebm.load({str(DATA / 'image.edgebm')!r}, target={runtime!r})\n"
        "x = np.zeros((1, 3, 4, 5), np.float32)\np = s.pipeline()\np.push(x)\n" + ENDINGS[ending]
    )
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, timeout=60, check=False
    )
    assert done.returncode == (3 if "SystemExit" in script else 0), done.stderr
    assert "Traceback" not in done.stderr


def resident_kib() -> int:
    pages = int(Path("/proc/self/statm").read_text(encoding="ascii").split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE") // 1024


@pytest.mark.row(55)
@pytest.mark.skipif(not Path("/proc/self/statm").exists(), reason="needs /proc/self/statm")
def test_frames_that_nobody_fetches_need_no_more_memory(image: Session) -> None:
    """Row 55 of the fault table."""
    bad = np.zeros((2, 2), np.float32)
    with image.pipeline() as pipeline:
        for _ in range(500):
            pipeline.push(IMAGES[0])
            pipeline.push(bad)
        before = resident_kib()
        for _ in range(3000):
            pipeline.push(IMAGES[0])
            pipeline.push(bad)
        assert resident_kib() - before < 1024
        counts = pipeline.counts
        assert counts.pushed == 7000 == counts.dropped + counts.waiting
        assert counts.waiting <= 5
