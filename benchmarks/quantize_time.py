"""Seconds that quantizing takes: edgebm's passes and NNCF's ``quantize``, in turns.

The same model and the same 300 samples. Ours includes reading the file, theirs does not. The
whole command is timed once; peak memory with 300 and with 3,000 samples comes from processes of
their own.

    python benchmarks/quantize_time.py minilm gtsrb
"""

from __future__ import annotations

import argparse
import re
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from datasets import WORK
from peer_tools import Source, build_nncf
from peers import TASKS

from edgebm.verbs.quantize import quantize

TURNS = 3


def edgebm_seconds(source: Source) -> float:
    """One run of edgebm's import, passes and lowering."""
    start = time.perf_counter()
    quantize(source.model, source.calibration)
    return time.perf_counter() - start


def nncf_seconds(source: Source) -> float:
    """One run of reading the model and ``nncf.quantize``, as the tool that builds it counts it."""
    return build_nncf(source).seconds


def whole_command(name: str, subset_size: int) -> tuple[float, float]:
    """Seconds and peak memory in MiB of ``edgebm compress`` on 3,000 samples."""
    with tempfile.TemporaryDirectory() as folder:
        command = [
            "/usr/bin/time", "-v", sys.executable, "-m", "edgebm", "compress",
            str(WORK / f"{name}.onnx"), "-d", str(WORK / f"{name}_calibration_3000.npz"),
            "--subset-size", str(subset_size), "-o", str(Path(folder) / "model.edgebm"),
        ]  # fmt: skip
        start = time.perf_counter()
        done = subprocess.run(command, capture_output=True, text=True, check=True)
        seconds = time.perf_counter() - start
    found = re.search(r"Maximum resident set size \(kbytes\): (\d+)", done.stderr)
    if found is None:
        sys.exit("GNU time is needed: apt-get install time")
    return seconds, int(found.group(1)) / 1024


def main() -> None:
    """Print a table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("tasks", nargs="+", choices=sorted(TASKS))
    print("| model | edgebm s | NNCF s | whole command s | peak MiB, 300 | peak MiB, 3000 |")
    print("|---|---|---|---|---|---|")
    for name in parser.parse_args().tasks:
        source = TASKS[name].source()
        turns = [(edgebm_seconds(source), nncf_seconds(source)) for _ in range(TURNS)]
        ours, theirs = (statistics.median(column) for column in zip(*turns, strict=True))
        (seconds, few), (_, many) = whole_command(name, 300), whole_command(name, 3000)
        print(
            f"| {name} | {ours:.1f} | {theirs:.1f} | {seconds:.0f} | {few:.0f} | {many:.0f} |",
            flush=True,
        )


if __name__ == "__main__":
    main()
