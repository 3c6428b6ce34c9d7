from __future__ import annotations

import gc
import os
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from edgebm import realtime
from edgebm.errors import UsageError
from edgebm.runtime import memory_lock

MINE = sorted(os.sched_getaffinity(0))
pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="Linux schedules like this")


@pytest.fixture(autouse=True)
def _as_it_was() -> Iterator[None]:
    """Every test must leave thread and garbage collector as they were."""
    before = os.sched_getaffinity(0), os.sched_getscheduler(0), gc.isenabled()
    yield
    assert (os.sched_getaffinity(0), os.sched_getscheduler(0), gc.isenabled()) == before
    assert gc.get_freeze_count() == 0


def refuse(error: OSError) -> Callable[..., None]:
    def call(*_: object) -> None:
        raise error

    return call


def test_without_arguments_objects_are_frozen_and_nothing_else_is_done() -> None:
    with realtime.prepare() as prepared:
        assert [step.name for step in prepared.steps] == ["gc"]
        assert prepared.complete
        assert gc.get_freeze_count() > 1000
        assert gc.isenabled()
    assert gc.get_freeze_count() == 0


def test_the_collector_is_switched_off_and_on_again() -> None:
    with realtime.prepare(freeze_gc=False, disable_gc=True) as prepared:
        assert not gc.isenabled()
        assert gc.get_freeze_count() == 0
        assert prepared.steps[0].message == "the garbage collector is off"
    with realtime.prepare(freeze_gc=False) as prepared:
        assert prepared.steps == ()
        assert prepared.complete


def test_what_was_frozen_before_stays_frozen() -> None:
    gc.freeze()
    try:
        realtime.prepare().restore()
        assert gc.get_freeze_count() > 0
    finally:
        gc.unfreeze()


def test_this_thread_and_those_it_starts_run_on_the_cores_given() -> None:
    seen: list[set[int]] = []
    with realtime.prepare(cpus=iter(MINE[-1:]), freeze_gc=False) as prepared:
        assert os.sched_getaffinity(0) == {MINE[-1]}
        thread = threading.Thread(target=lambda: seen.append(os.sched_getaffinity(0)))
        thread.start()
        thread.join()
        assert seen == [{MINE[-1]}]
        assert str(prepared) == f"cpus: this thread runs on cores {MINE[-1]} only"
    assert sorted(os.sched_getaffinity(0)) == MINE


def test_threads_that_run_already_are_left_alone() -> None:
    ready, done = threading.Event(), threading.Event()
    seen: list[set[int]] = []

    def other() -> None:
        ready.set()
        done.wait(10)
        seen.append(os.sched_getaffinity(0))

    thread = threading.Thread(target=other)
    thread.start()
    ready.wait(10)
    with realtime.prepare(cpus=MINE[:1], freeze_gc=False):
        done.set()
        thread.join()
    assert sorted(seen[0]) == MINE


@pytest.mark.parametrize("cpus", [[100_000], [10**30]])
def test_cores_that_do_not_exist(cpus: list[int]) -> None:
    prepared = realtime.prepare(cpus=cpus, freeze_gc=False)
    assert not prepared.complete
    assert "were refused" in str(prepared)
    assert f"may use {MINE}" in str(prepared)
    assert "cpus: NOT DONE" in str(prepared)
    prepared.restore()


def test_cores_that_the_system_leaves_out_without_a_word() -> None:
    absent = (os.cpu_count() or 1) + 5
    with realtime.prepare(cpus=[*MINE, absent], freeze_gc=False) as prepared:
        assert not prepared.complete
        assert f"left out [{absent}]" in prepared.steps[0].message


def test_priority_is_taken_and_given_back_if_the_system_allows_it() -> None:
    with realtime.prepare(priority=1, freeze_gc=False) as prepared:
        (step,) = prepared.steps
        policy = os.sched_getscheduler(0)
        assert (policy == os.SCHED_FIFO) == step.done
        assert ("SCHED_FIFO" if step.done else "CAP_SYS_NICE") in step.message


def test_a_refused_priority_names_what_is_needed(monkeypatch: pytest.MonkeyPatch) -> None:
    denied = refuse(PermissionError(1, "Operation not permitted"))
    monkeypatch.setattr(realtime.os, "sched_setscheduler", denied)
    prepared = realtime.prepare(priority=42, freeze_gc=False)
    assert not prepared.complete
    for words in ("priority 42 was refused", "CAP_SYS_NICE", "RLIMIT_RTPRIO", "LimitRTPRIO"):
        assert words in str(prepared)
    assert prepared.restore() == ()
    assert prepared.to_dict()["steps"][0]["done"] is False


def test_what_cannot_be_set_back_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    prepared = realtime.prepare(cpus=MINE[:1], freeze_gc=False)
    with monkeypatch.context() as patch:
        gone = refuse(ProcessLookupError(3, "No such process"))
        patch.setattr(realtime.os, "sched_setaffinity", gone)
        assert prepared.restore() == ("not set back: No such process",)
    assert prepared.restore() == ()
    os.sched_setaffinity(0, MINE)


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ({"cpus": []}, "cpus must be"),
        ({"cpus": 3}, "cpus must be"),
        ({"cpus": "01"}, "cpus must be"),
        ({"cpus": [-1]}, "cpus must be"),
        ({"cpus": [True]}, "cpus must be"),
        ({"priority": 0}, "priority is 0"),
        ({"priority": 100}, "priority is 100"),
        ({"priority": True}, "priority is True"),
        ({"cpus": [0.5], "lock_memory": 1, "priority": "9"}, "cpus must .*; priority .*; lock_"),
    ],
)
def test_wrong_arguments_are_all_named_and_nothing_is_done(
    arguments: dict[str, Any], words: str
) -> None:
    with pytest.raises(UsageError, match=words):
        realtime.prepare(**arguments)


def test_other_systems_say_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(realtime, "_IS_LINUX", False)
    monkeypatch.setattr(memory_lock, "_IS_LINUX", False)
    with realtime.prepare(cpus=[0], priority=1, lock_memory=True) as prepared:
        assert [step.done for step in prepared.steps] == [False, False, True, False]
        assert str(prepared).count("Linux only") == 3


def status(tmp_path: Path, bits: int) -> Path:
    path = tmp_path / "status"
    path.write_text(f"Name:\tx\nCapEff:\t{bits:016x}\n")
    return path


@pytest.mark.parametrize(
    ("bits", "limit", "locks"), [(0, 8 << 20, False), (1 << 14, 8 << 20, True), (0, -1, True)]
)
def test_memory_is_locked_only_where_later_allocations_cannot_fail(
    bits: int, limit: int, locks: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    called: list[tuple[object, ...]] = []
    monkeypatch.setattr(memory_lock, "_STATUS", status(tmp_path, bits))
    monkeypatch.setattr("resource.getrlimit", lambda _: (limit, limit))
    monkeypatch.setattr(memory_lock, "_call", lambda *args: called.append(args) or "")
    with realtime.prepare(freeze_gc=False, lock_memory=True) as prepared:
        (step,) = prepared.steps
        assert step.done == locks
        assert locks or ("8 MiB" in step.message and "CAP_IPC_LOCK" in step.message)
    assert [args[0] for args in called] == (["mlockall", "munlockall"] if locks else [])


def test_the_system_may_refuse_to_lock_all_the_same(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(memory_lock, "_STATUS", status(tmp_path, 1 << 14))
    monkeypatch.setattr(memory_lock, "_call", lambda *_: "mlockall: Cannot allocate memory")
    prepared = realtime.prepare(freeze_gc=False, lock_memory=True)
    assert "NOT DONE: memory was not locked: mlockall: Cannot allocate" in str(prepared)


def test_locking_for_real_in_a_process_of_its_own() -> None:
    code = """
import edgebm.realtime
from pathlib import Path
def locked():
    lines = Path("/proc/self/status").read_text().splitlines()
    return int(next(l for l in lines if l.startswith("VmLck")).split()[1])
with edgebm.realtime.prepare(lock_memory=True) as prepared:
    done = prepared.steps[-1].done
    assert (locked() > 0) == done, prepared
assert locked() == 0
"""
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr


def test_a_session_never_prepares_by_itself() -> None:
    code = """
import gc, os, sys
import edgebm
edgebm.load
assert "edgebm.realtime" not in sys.modules
assert gc.get_freeze_count() == 0 and gc.isenabled()
assert edgebm.realtime.prepare is not None
"""
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
