"""Kill processes with SIGKILL at random moments while they fill a cache, and look what is left.

After each kill every entry that has a name must be whole, and the next load must work, in the
same folder; at the end no temporary file is left. Two children fill one folder at once:
    python benchmarks/kill_cache.py BUNDLE [--count 200] [--megabytes 4]
"""

from __future__ import annotations

import argparse
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path

from edgebm.runtime.cache_folder import SUFFIX
from edgebm.runtime.cache_place import CacheFolder
from edgebm.runtime.cache_store import open_store
from edgebm.runtime.session import load

# The child stores entries of random bytes by the steps of a real start, without the vendor.
_CHILD = """
import os, sys
from pathlib import Path
from edgebm.runtime.cache_folder import SUFFIX
from edgebm.runtime.cache_place import CacheFolder
from edgebm.runtime.cache_store import open_store
with open_store(CacheFolder(Path(sys.argv[1]))) as store:
    print("ready", flush=True)
    while True:
        key = bytes([os.urandom(1)[0] % 4]) * 32
        with store.folder.lock(key.hex()[:2], 10):
            store.folder.sweep()
            blobs = [os.urandom(int(sys.argv[2]))] * 2
            store.folder.make_room(len(blobs[0]) * 2, len(blobs[0]) * 7)
            with store.draft(key, {"options": [{}, {}]}, blobs) as draft:
                store.read_draft(draft)
                store.publish(draft, key.hex() + sys.argv[3])
"""


def filler(folder: Path, size: int) -> subprocess.Popen[str]:
    """A process that fills the cache from now on."""
    child = subprocess.Popen(
        [sys.executable, "-c", _CHILD, str(folder), str(size), SUFFIX],
        stdout=subprocess.PIPE,
        text=True,
    )
    assert child.stdout is not None
    if child.stdout.readline() != "ready\n":
        raise RuntimeError("the child did not start")
    return child


def whole_entries(rules: CacheFolder) -> int:
    """Read every entry of the fillers to its end; raises if one is not what was written."""
    with open_store(rules) as store:
        names = [e.name for e in store.folder.entries() if "-" not in e.name]
        for name in names:
            store.read(name, bytes.fromhex(name.removesuffix(SUFFIX)))
        return len(names)


def main() -> None:
    """Print one line for each outcome, and how often it came."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("bundle", type=Path)
    parser.add_argument("--count", type=int, default=200)
    parser.add_argument("--megabytes", type=float, default=4.0)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    rng, seen = random.Random(options.seed), Counter[str]()
    start = time.monotonic()
    with tempfile.TemporaryDirectory(prefix="edgebm-") as base:
        rules = CacheFolder(Path(base, "cache"), least_saved_ms=-1, wait_s=60)
        size = int(options.megabytes * 1e6 / 2)
        for _ in range(options.count):
            children = [filler(rules.path, size) for _ in range(2)]
            time.sleep(rng.uniform(0.0, 0.2))
            for child in children:
                os.kill(child.pid, signal.SIGKILL)
                child.communicate()
            seen["temporary files left by a kill"] += len(list(rules.path.glob(".edgebm-tmp-*")))
            seen["whole entries read"] += whole_entries(rules)
            with load(options.bundle, target="openvino", cache=rules) as session:
                report = session.report()
            seen[f"next load: {report['cache']['state']}, {len(report['warnings'])} warnings"] += 1
            if report["cache"]["rejected"]:
                raise RuntimeError(f"an entry was not whole: {report['cache']}")
            for entry in rules.path.glob(f"*-*{SUFFIX}"):
                entry.unlink()  # so that the next load stores again
        left = list(rules.path.glob(".edgebm-tmp-*"))
    for what, count in sorted(seen.items()):
        print(f"{count:6} {what}")
    print(f"{len(left):6} temporary files at the end")
    print(f"{options.count} rounds of two killed processes in {time.monotonic() - start:.0f} s")


if __name__ == "__main__":
    main()
