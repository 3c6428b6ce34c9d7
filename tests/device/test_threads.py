"""One core is one thread, and no runtime complains about it: seen in a process of its own."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

DATA = Path(__file__).parent / "data"

_PINNED = """
import os, sys
os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})
os.execv(sys.executable, [sys.executable, "-c", *sys.argv[1:]])
"""
_LOAD = """
import json, os, sys
import edgebm
import numpy as np
with edgebm.load(sys.argv[1], target=sys.argv[2], threads=4) as session:
    session.run(np.zeros((1, 3, 4, 5), np.float32))
    report = session.report()
    cores = len(os.sched_getaffinity(0))
    print(json.dumps({"threads": report["threads"], "warnings": report["warnings"],
                      "cores": cores}))
"""


@pytest.mark.skipif(not hasattr(os, "sched_setaffinity"), reason="cores cannot be chosen here")
def test_a_process_on_one_core_takes_one_thread(runtime: str) -> None:
    command = [sys.executable, "-c", _PINNED, _LOAD, str(DATA / "image.edgebm"), runtime]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")
    found = json.loads(done.stdout)
    assert (found["threads"], found["cores"]) == (1, 1)
    assert any("4 threads asked for, 1 may be used" in text for text in found["warnings"])
