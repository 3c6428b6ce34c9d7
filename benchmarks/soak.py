"""Wrong answers, leaks and file accesses in long use of a session.

    python benchmarks/soak.py                    # all, ten minutes on two cores
    python benchmarks/soak.py threads --count 10000
    python benchmarks/soak.py memory --count 1000000
    python benchmarks/soak.py files --count 1000

threads: eight threads, each with `count` inputs of its own, against the same inputs one by one.
memory: growth of the process over `count` runs, with new answers, into given buffers, and in a
stream. files: `strace` of `count` rounds of runs; no system call may name a file.
"""

from __future__ import annotations

import argparse
import shutil
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).parents[1] / "tests" / "faults"))
from fault_bundles import DATA, INSTALLED
from soak_loops import files_touched, growth_bytes, mismatches

import edgebm

THREADS = 8
COUNTS = {"threads": 10_000, "memory": 1_000_000, "files": 1000}
Row = tuple[str, str, str, bool]


def threads(count: int) -> Iterator[Row]:
    """Mismatches of eight threads."""
    for runtime in INSTALLED:
        for name in ("image", "echo"):
            with edgebm.load(DATA / f"{name}.edgebm", target=runtime) as session:
                wrong = mismatches(session, THREADS, count)
            what = f"{THREADS} threads x {count:,} inputs, {name}"
            yield runtime, what, f"{wrong} mismatches", wrong == 0


def memory(count: int) -> Iterator[Row]:
    """Growth of memory in the three ways to call."""
    image, frame = np.zeros((1, 3, 4, 5), np.float32), np.zeros((1, 1, 4), np.float32)
    out = {"scores": np.empty((1, 2), np.float32)}
    for runtime in INSTALLED:
        with (
            edgebm.load(DATA / "image.edgebm", target=runtime) as session,
            edgebm.load(DATA / "lstm.edgebm", target=runtime) as recurrent,
            recurrent.stream() as stream,
        ):
            ways: dict[str, Callable[[], object]] = {
                "run(x)": lambda s=session: s.run(image),  # type: ignore[misc]
                "run(x, out=)": lambda s=session: s.run(image, out=out),  # type: ignore[misc]
                "stream.step(x)": lambda s=stream: s.step(frame),  # type: ignore[misc]
            }
            for way, call in ways.items():
                grown = growth_bytes(call, count)
                yield runtime, f"{count:,} x {way}", f"{grown / 1024:+.0f} KiB", grown < 1 << 20


def files(count: int) -> Iterator[Row]:
    """File names in system calls of runs."""
    if shutil.which("strace") is None:
        yield "-", "file accesses in runs", "not seen: strace is not installed", True
        return
    for runtime in INSTALLED:
        with tempfile.TemporaryDirectory() as folder:
            log = Path(folder) / "log"
            calls = files_touched(DATA / "image.edgebm", runtime, count, log)
        what = f"file accesses in {count:,} x 3 runs"
        yield runtime, what, f"{len(calls)} {' '.join(calls[:3])}".strip(), not calls


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("part", nargs="?", choices=COUNTS)
    parser.add_argument("--count", type=int)
    options = parser.parse_args()
    if options.count and not options.part:
        parser.error("--count needs a part")
    parts = {"threads": threads, "memory": memory, "files": files}
    print("| runtime | what | found | as it must be | s |\n| --- | --- | --- | --- | ---: |")
    good = True
    for name in [options.part] if options.part else COUNTS:
        begin = time.monotonic()
        for runtime, what, found, is_good in parts[name](options.count or COUNTS[name]):
            seconds = time.monotonic() - begin
            print(
                f"| {runtime} | {what} | {found} | {'yes' if is_good else 'NO'} | {seconds:.0f} |"
            )
            good, begin = good and is_good, time.monotonic()
    raise SystemExit(not good)


if __name__ == "__main__":
    main()
