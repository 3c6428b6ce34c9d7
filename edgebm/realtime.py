"""Prepare a thread for real time: cores, priority, garbage collector, locked memory.

    import edgebm

    with edgebm.realtime.prepare(cpus=[3], priority=50) as prepared:
        print(prepared)  # what was done, and what could not be done and why
        with edgebm.load("model.edgebm") as session:
            edgebm.realtime.prepare()  # what loading made is frozen, too
            ...

Nothing here happens by itself: a session never changes how its process is scheduled.
"""

from __future__ import annotations

import gc
import os
import sys
import threading
from collections.abc import Callable, Iterable
from dataclasses import asdict, dataclass
from types import TracebackType
from typing import Any, Literal

from edgebm.errors import UsageError
from edgebm.runtime.memory_lock import lock_all, unlock_all

Undo = Callable[[], object]
_IS_LINUX = sys.platform == "linux"
_NOT_LINUX = f"this works on Linux only, not on {sys.platform}"


@dataclass(frozen=True, slots=True)
class Step:
    """One thing that was asked for: whether it was done, and what was done or why not."""

    name: Literal["cpus", "priority", "gc", "memory"]
    done: bool
    message: str


class Prepared:
    """What `prepare` did and could not do, and how to undo it; a context manager that undoes it.

    `steps` has one entry for each thing that was asked for, in the order of the arguments.
    """

    def __init__(self, steps: Iterable[Step], undo: Iterable[Undo]) -> None:
        self.steps = tuple(steps)
        self._undo = list(undo)

    @property
    def complete(self) -> bool:
        """Whether everything was done that was asked for."""
        return all(step.done for step in self.steps)

    def restore(self) -> tuple[str, ...]:
        """Set back what `prepare` changed, from any thread; a second call does nothing.

        Threads that were started meanwhile keep what they inherited.

        Returns:
            A sentence for each thing that could not be set back.
        """
        refused = []
        while self._undo:
            try:
                self._undo.pop()()
            except OSError as cause:  # noqa: PERF203 - a handful
                refused.append(f"not set back: {cause.strerror or cause}")
        return tuple(refused)

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON types."""
        return {"complete": self.complete, "steps": [asdict(step) for step in self.steps]}

    def __str__(self) -> str:
        return "\n".join(
            f"{step.name}: {'' if step.done else 'NOT DONE: '}{step.message}"
            for step in self.steps
        )

    def __enter__(self) -> Prepared:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        value: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.restore()


def prepare(
    cpus: Iterable[int] | None = None,
    priority: int | None = None,
    *,
    freeze_gc: bool = True,
    disable_gc: bool = False,
    lock_memory: bool = False,
) -> Prepared:
    """Prepare the calling thread, and the threads it starts from now on, for real time.

    Call it before `load`, in the thread that loads and runs: the threads of a vendor runtime
    inherit cores and priority from the thread that starts them, and `load` takes no more threads
    than there are `cpus`. What the system refuses is said in the result and never raised.

    Args:
        cpus: numbers of the cores to run on; None leaves them.
        priority: 1 to 99 under SCHED_FIFO, which nothing but a higher one interrupts; None
            leaves it. 50 and above compete with the kernel's own threads.
        freeze_gc: collect once, then never look again at the objects that exist now. Objects
            made later are collected as ever. A full collection of a million objects takes more
            than a tenth of a second.
        disable_gc: switch the garbage collector off. Objects that refer to each other in a
            circle then stay for ever.
        lock_memory: what this process has used of its memory stays in RAM, now and later.

    Raises:
        UsageError: an argument is wrong; lists all that are.
    """
    wanted = None if cpus is None else _cores(cpus)
    faults = [] if cpus is None else _core_faults(wanted)
    faults += _priority_faults(priority)
    flags = {"freeze_gc": freeze_gc, "lock_memory": lock_memory, "disable_gc": disable_gc}
    faults += [f"{name} is {x!r}, True or False is expected" for name, x in flags.items()
               if not isinstance(x, bool)]  # fmt: skip
    if faults:
        raise UsageError("; ".join(faults))
    steps: list[Step] = []
    undo: list[Undo] = []
    if wanted is not None:
        steps.append(_pin(wanted, undo))
    if priority is not None:
        steps.append(_raise_priority(priority, undo))
    if freeze_gc or disable_gc:
        steps.append(_settle_gc(undo, freeze=freeze_gc, disable=disable_gc))
    if lock_memory:
        steps.append(Step("memory", *lock_all()))
        if steps[-1].done:
            undo.append(unlock_all)
    return Prepared(steps, undo)


def _cores(cpus: object) -> tuple[object, ...]:
    if isinstance(cpus, Iterable) and not isinstance(cpus, (str, bytes)):
        return tuple(cpus)
    return ()


def _core_faults(cpus: tuple[object, ...] | None) -> list[str]:
    fit = cpus and all(type(core) is int and core >= 0 for core in cpus)
    return [] if fit else ["cpus must be one or more numbers of cores, such as [2, 3]"]


def _priority_faults(priority: object) -> list[str]:
    if priority is None or (type(priority) is int and 1 <= priority <= 99):
        return []
    return [f"priority is {priority!r}, a whole number from 1 to 99 is expected"]


def _pin(wanted: tuple[Any, ...], undo: list[Undo]) -> Step:
    if not _IS_LINUX:
        return Step("cpus", done=False, message=_NOT_LINUX)
    thread, asked = threading.get_native_id(), set(wanted)
    before = os.sched_getaffinity(thread)
    names = ", ".join(map(str, sorted(asked)))
    try:
        os.sched_setaffinity(thread, asked)
    except (OSError, OverflowError) as cause:
        reason = cause.strerror if isinstance(cause, OSError) else cause
        return Step(
            "cpus",
            done=False,
            message=f"cores {names} were refused ({reason}): this process may use "
            f"{sorted(before)}; others must be allowed by its cpuset (docker --cpuset-cpus, "
            "systemd AllowedCPUs)",
        )
    undo.append(lambda: os.sched_setaffinity(thread, before))
    missing = sorted(asked - os.sched_getaffinity(thread))
    if missing:
        return Step(
            "cpus",
            done=False,
            message=f"of cores {names} the system left out {missing}: they do not exist, or are "
            "not in the cpuset of this process",
        )
    return Step("cpus", done=True, message=f"this thread runs on cores {names} only")


def _raise_priority(priority: int, undo: list[Undo]) -> Step:
    if not _IS_LINUX:
        return Step("priority", done=False, message=_NOT_LINUX)
    thread = threading.get_native_id()
    policy, before = os.sched_getscheduler(thread), os.sched_getparam(thread)
    try:
        os.sched_setscheduler(thread, os.SCHED_FIFO, os.sched_param(priority))
    except OSError as cause:
        return Step("priority", done=False, message=_why_no_priority(priority, cause))
    undo.append(lambda: os.sched_setscheduler(thread, policy, before))
    return Step("priority", done=True, message=f"this thread has priority {priority} (SCHED_FIFO)")


def _why_no_priority(priority: int, cause: OSError) -> str:
    import resource  # there is none on Windows

    allowed = resource.getrlimit(resource.RLIMIT_RTPRIO)[0]
    return (
        f"priority {priority} was refused ({cause.strerror}): it takes the capability "
        f"CAP_SYS_NICE, or a limit RLIMIT_RTPRIO of {priority} or more, which is {allowed} here "
        "(systemd: LimitRTPRIO=, docker: --cap-add SYS_NICE or --ulimit rtprio=, else "
        "/etc/security/limits.conf). With either of them, the cgroup has no real-time budget "
        "(cpu.rt_runtime_us)"
    )


def _settle_gc(undo: list[Undo], *, freeze: bool, disable: bool) -> Step:
    done = []
    if freeze:
        # Whoever froze objects before wants them to stay so.
        if gc.get_freeze_count() == 0:
            undo.append(gc.unfreeze)
        gc.collect()
        gc.freeze()
        done.append(f"{gc.get_freeze_count()} objects are not looked at any more")
    if disable:
        if gc.isenabled():
            undo.append(gc.enable)
        gc.disable()
        done.append("the garbage collector is off")
    return Step("gc", done=True, message="; ".join(done))
