"""The life of a stream on a device: snapshots, the ends of streams and sessions, memory."""

from __future__ import annotations

import hashlib
import importlib.util
import os
from pathlib import Path

import numpy as np
import pytest

import edgebm
from edgebm.errors import Closed, ForkedUse, InputPort, StateError
from edgebm.runtime.engines import CPU_RUNTIMES
from edgebm.runtime.runner import Session

DATA = Path(__file__).parent / "data"
INSTALLED = [name for name in CPU_RUNTIMES if importlib.util.find_spec(name)]
FRAMES = np.random.default_rng(12).normal(size=(12, 1, 1, 4)).astype(np.float32)


@pytest.mark.parametrize("bundle", ["lstm", "chunks", "decoder"])
def test_a_snapshot_goes_on_in_other_streams_and_sessions(bundle: str, runtime: str) -> None:
    path = DATA / f"{bundle}.edgebm"
    with edgebm.load(path, target=runtime) as session, session.stream() as stream:
        fresh = stream.snapshot()
        for x in FRAMES[:5]:
            stream.step(x)
        snapshot = stream.snapshot()
        expected = [stream.step(x)["y"] for x in FRAMES[5:10]]
        stream.restore(snapshot)
        assert stream.snapshot() == snapshot
        with edgebm.load(path, target=runtime) as another:
            for each in (stream, session.stream(), another.stream()):
                each.restore(bytearray(snapshot))
                for x, want in zip(FRAMES[5:10], expected, strict=True):
                    np.testing.assert_array_equal(each.step(x)["y"], want)
        stream.restore(fresh)
        assert stream.snapshot() == fresh


def test_a_foreign_or_damaged_snapshot_changes_nothing(lstm: Session, decoder: Session) -> None:
    with lstm.stream() as stream, decoder.stream() as foreign:
        stream.step(FRAMES[0])
        foreign.step(FRAMES[0])
        good = stream.snapshot()
        stream.step(FRAMES[1])
        before = stream.snapshot()
        forged = good[:-36] + np.float32(np.nan).tobytes()
        forged += hashlib.sha256(forged).digest()
        longer = good[:-32] + bytes(4)
        longer += hashlib.sha256(longer).digest()
        flipped = [bytes([*good[:i], good[i] ^ 4, *good[i + 1 :]]) for i in range(0, len(good), 7)]
        cut = [good[:size] for size in range(0, len(good), 9)]
        for wrong in (foreign.snapshot(), forged, longer, *flipped, *cut, b"", "text", None):
            with pytest.raises(StateError):
                stream.restore(wrong)  # type: ignore[arg-type]
            assert stream.snapshot() == before
        with pytest.raises(StateError, match="of another model"):
            stream.restore(foreign.snapshot())
        with pytest.raises(StateError, match="is damaged"):
            stream.restore(good[:-1])
        stream.restore(good)


@pytest.mark.skipif(len(INSTALLED) < 2, reason="one runtime is installed")
def test_a_snapshot_of_another_runtime_is_foreign() -> None:
    sessions = [edgebm.load(DATA / "lstm.edgebm", target=name) for name in INSTALLED]
    one, other = (session.stream() for session in sessions[:2])
    with pytest.raises(StateError, match="of another model"):
        other.restore(one.snapshot())


@pytest.mark.row(47)
def test_a_closed_stream_or_session_says_which(lstm: Session) -> None:
    stream, other = lstm.stream(), lstm.stream()
    stream.step(FRAMES[0])
    snapshot = stream.snapshot()
    stream.close()
    stream.close()
    for call in (lambda: stream.step(FRAMES[0]), stream.reset, stream.snapshot):
        with pytest.raises(Closed, match="the stream is closed"):
            call()
    with pytest.raises(Closed):
        stream.restore(snapshot)
    with pytest.raises(Closed):
        _ = stream.states
    other.step(FRAMES[0])
    lstm.close()
    with pytest.raises(Closed, match="the session is closed"):
        other.step(FRAMES[0])
    with pytest.raises(Closed, match="the session is closed"):
        lstm.stream()
    other.close()


def test_a_session_without_states_has_no_streams(runtime: str) -> None:
    session = edgebm.load(DATA / "image.edgebm", target=runtime)
    with pytest.raises(StateError, match="no states") as caught:
        session.stream()
    assert "--state" in caught.value.hint
    assert "--streaming" in caught.value.hint


def test_run_takes_states_as_ordinary_inputs(lstm: Session) -> None:
    with pytest.raises(InputPort, match=r"missing inputs \['h', 'c'\]") as caught:
        lstm.run(x=FRAMES[0])
    assert "session.stream() feeds 'h' back" in caught.value.hint
    out = lstm.run(x=FRAMES[0], **lstm.stream().states)
    assert list(out) == ["y", "h_out", "c_out"]


@pytest.mark.row(45)
@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system cannot fork")
@pytest.mark.filterwarnings("ignore:.*multi-threaded.*fork:DeprecationWarning")
def test_a_forked_child_is_told_to_load_itself(echo: Session) -> None:
    with echo.stream() as stream:
        x = np.ones((1, 4), np.float32)
        stream.step(x)
        child = os.fork()
        if child == 0:
            try:
                stream.step(x)
            except ForkedUse:
                os._exit(7)
            os._exit(1)
        _, status = os.waitpid(child, 0)
        assert os.waitstatus_to_exitcode(status) == 7
        np.testing.assert_array_equal(stream.step(x)["y"], x + x)


def test_a_benchmark_times_steps_of_a_stream(decoder: Session, lstm: Session) -> None:
    for session in (decoder, lstm):
        assert session.benchmark(seconds=0.05).calls > 5


def resident_kib() -> int:
    pages = int(Path("/proc/self/statm").read_text(encoding="ascii").split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE") // 1024


@pytest.mark.skipif(not Path("/proc/self/statm").exists(), reason="needs /proc/self/statm")
@pytest.mark.parametrize("bundle", ["lstm", "chunks"])
def test_thousands_of_steps_need_no_more_memory(bundle: str, runtime: str) -> None:
    with edgebm.load(DATA / f"{bundle}.edgebm", target=runtime) as session:
        stream = session.stream()
        for _ in range(1000):
            stream.step(FRAMES[0])
        before = resident_kib()
        for _ in range(8000):
            stream.step(FRAMES[0])
        for _ in range(100):
            session.stream().step(FRAMES[0])
        assert resident_kib() - before < 1024
