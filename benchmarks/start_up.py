"""How long the device half takes to import, and how slow the first call of a session is.

Each figure is from processes of its own, in turns: `import edgebm` with the function
`edgebm.load`, over numpy alone, and the first `run` after a load over the median of 200 more:
    python benchmarks/start_up.py BUNDLE [BUNDLE ...] [--turns 15]
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import time
from pathlib import Path
from statistics import median

from peer_table import environment

from edgebm.runtime.bundle import read_bundle

IMPORT = """
import time
import numpy
begin = time.perf_counter()
import edgebm
edgebm.load
print((time.perf_counter() - begin) * 1e3)
"""
FIRST = """
import sys, time
import edgebm
from edgebm.runtime.bundle import read_bundle
path, runtime = sys.argv[1:]
bundle = read_bundle(path)
arrays, _ = bundle.golden(0)
feeds = {spec.name: array for spec, array in zip(bundle.manifest.inputs, arrays)}
times = []
with edgebm.load(path, runtime) as session:
    for _ in range(201):
        begin = time.perf_counter()
        session.run(feeds)
        times.append((time.perf_counter() - begin) * 1e3)
first, later = times[0], sorted(times[1:])
print(first, later[len(later) // 2])
"""
PAUSE_S = 0.2


def figures(code: str, *arguments: str) -> list[float]:
    """What a new process with this code prints."""
    time.sleep(PAUSE_S)
    command = [sys.executable, "-c", code, *arguments]
    # Where bytecode is not kept, each import compiles everything.
    keeping = {key: value for key, value in os.environ.items() if key != "PYTHONDONTWRITEBYTECODE"}
    done = subprocess.run(command, capture_output=True, text=True, check=True, env=keeping)
    return [float(word) for word in done.stdout.split()]


def main() -> None:
    """Print a line for the import and one for each variant of each bundle."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("bundles", type=Path, nargs="+")
    parser.add_argument("--turns", type=int, default=15)
    options = parser.parse_args()
    print(environment())
    figures(IMPORT)  # compiles what was never imported
    imports = [figures(IMPORT)[0] for _ in range(options.turns)]
    print(f"import over numpy: median {median(imports):.1f} ms, quietest {min(imports):.1f} ms")
    print("| bundle | first ms | median ms | first over median: median turn | worst turn |")
    print("|---|---|---|---|---|")
    for path in options.bundles:
        for runtime in sorted({v.runtime for v in read_bundle(path).manifest.variants}):
            found = [figures(FIRST, str(path), runtime) for _ in range(options.turns)]
            ratios = [first / later for first, later in found]
            cells = [f"{median(column):.4f}" for column in zip(*found, strict=True)]
            cells += [f"{median(ratios):.2f}", f"{max(ratios):.2f}"]
            print(f"| {path.stem} {runtime} | {' | '.join(cells)} |", flush=True)


if __name__ == "__main__":
    main()
