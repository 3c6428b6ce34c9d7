"""Loops that show wrong answers, leaks and file accesses; short in tests, long in benchmarks."""

from __future__ import annotations

import gc
import os
import re
import subprocess
import sys
import threading
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

import edgebm
from edgebm.runtime.runner import Session

Feeds = dict[str, NDArray[Any]]
_PAGE_BYTES = os.sysconf("SC_PAGE_SIZE")
_CALLS = """
import os, sys
import numpy as np
import edgebm
session = edgebm.load(sys.argv[1], target=sys.argv[2])
feeds = {spec.name: np.zeros(spec.shape, spec.dtype) for spec in session.inputs}
out = {name: array.copy() for name, array in session.run(feeds).items()}
os.access("/edgebm-begin", os.F_OK)
for _ in range(int(sys.argv[3])):
    session.run(feeds)
    session.run(feeds, out=out)
    session.run(feeds, deadline_ms=60_000)
os.access("/edgebm-end", os.F_OK)
"""


def distinct(session: Session, seed: int, count: int) -> list[Feeds]:
    """`count` inputs of float numbers, no two of them alike."""
    rng = np.random.default_rng(seed)
    drawn = {spec.name: rng.normal(size=(count, *spec.shape)) for spec in session.inputs}
    return [
        {spec.name: drawn[spec.name][k].astype(spec.dtype) for spec in session.inputs}
        for k in range(count)
    ]


def mismatches(session: Session, threads: int, count: int) -> int:
    """Answers of `threads` threads at once that differ in a bit from those of one thread alone."""
    feeds = [distinct(session, seed, count) for seed in range(threads)]
    expected = [[session.run(one) for one in mine] for mine in feeds]
    wrong = [0] * threads
    begin = threading.Barrier(threads)

    def work(mine: int) -> None:
        begin.wait()
        for one, due in zip(feeds[mine], expected[mine], strict=True):
            got = session.run(one)
            wrong[mine] += any(got[name].tobytes() != due[name].tobytes() for name in due)

    workers = [threading.Thread(target=work, args=(mine,)) for mine in range(threads)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    return sum(wrong)


def resident_bytes() -> int:
    """Memory of this process that is in use."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * _PAGE_BYTES


def growth_bytes(call: Callable[[], object], count: int) -> int:
    """By how much memory grows over `count` calls, after a tenth as many."""
    for _ in range(max(1000, count // 10)):
        call()
    gc.collect()
    before = resident_bytes()
    for _ in range(count):
        call()
    gc.collect()
    return resident_bytes() - before


def files_touched(bundle: Path, runtime: str, count: int, log: Path) -> Sequence[str]:
    """System calls with a file name in `count` rounds of calls, as `strace` saw them.

    Raises:
        RuntimeError: strace could not watch the process.
    """
    root = str(Path(edgebm.__file__).parents[1])
    command = ["strace", "-f", "-qq", "-e", "trace=%file", "-o", str(log)]
    done = subprocess.run(
        [*command, sys.executable, "-c", _CALLS, str(bundle), runtime, str(count)],
        env={**os.environ, "PYTHONPATH": root}, capture_output=True, text=True, check=False,
    )  # fmt: skip
    text = log.read_text(encoding="utf-8", errors="replace") if log.exists() else ""
    found = re.search(r".*edgebm-begin.*\n((?:.*\n)*?).*edgebm-end", text)
    if done.returncode or found is None:
        raise RuntimeError(f"strace ended with {done.returncode}: {done.stderr[-500:]}")
    return found.group(1).splitlines()
