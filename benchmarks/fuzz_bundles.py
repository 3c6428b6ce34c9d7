"""What the reader of bundles makes of a million damaged and hostile ones.

    python benchmarks/fuzz_bundles.py --count 1000000 [--seed 0]

Each is refused as a bundle is, or accepted exactly as written; the first other outcome ends the
run with the kind and seed, and leaves the bytes in `benchmarks/out`. Ten minutes on one core.
"""

from __future__ import annotations

import argparse
import resource
import sys
import tempfile
import time
from collections import Counter
from itertools import islice
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1] / "tests" / "faults"))
from bundle_mutations import Mutations, verdict

OUT = Path(__file__).parent / "out"


def run(count: int, seed: int, folder: Path) -> tuple[Counter[tuple[str, str]], float, str]:
    """How often each kind of mutation got each verdict, and the slowest: seconds and kind."""
    found: Counter[tuple[str, str]] = Counter()
    slowest, which = 0.0, ""
    for index, (kind, data) in enumerate(islice(Mutations(seed), count)):
        begin = time.perf_counter()
        try:
            found[kind, verdict(folder / "b.edgebm", data)] += 1
        except BaseException:
            OUT.mkdir(exist_ok=True)
            path = OUT / f"fuzz-{seed}-{index}.edgebm"
            path.write_bytes(data)
            print(f"{kind} number {index} of seed {seed} is no bundle and no fault: {path}")
            raise
        seconds = time.perf_counter() - begin
        if seconds > slowest:
            slowest, which = seconds, f"{kind}, number {index}, {len(data)} bytes"
    return found, slowest, which


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--count", type=int, default=1_000_000)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    before_mib = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    begin = time.perf_counter()
    with tempfile.TemporaryDirectory() as folder:
        found, slowest, which = run(options.count, options.seed, Path(folder))
    seconds = time.perf_counter() - begin
    verdicts = sorted({verdict for _, verdict in found})
    print("| mutation | " + " | ".join(verdicts) + " |")
    print("| --- |" + " ---: |" * len(verdicts))
    for kind in sorted({kind for kind, _ in found}):
        print(f"| {kind} | " + " | ".join(f"{found[kind, v]:,}" for v in verdicts) + " |")
    after_mib = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    print(f"\n{found.total():,} bundles in {seconds:.0f} s, no crash and no other error")
    print(f"slowest: {slowest * 1e3:.1f} ms ({which})")
    print(f"largest memory: {after_mib:.1f} MiB, {before_mib:.1f} before the first")


if __name__ == "__main__":
    main()
