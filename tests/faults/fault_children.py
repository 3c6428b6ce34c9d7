"""Programs of their own that use a bundle, since what they suffer would end the tests."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

from fault_bundles import SOURCE

import edgebm

RUNTIME = Path(edgebm.__file__).parent / "runtime"
START = """
import gc, os, resource, signal, sys, threading, time
import numpy as np
import edgebm
import edgebm.runtime.session
from edgebm.runtime.engines import import_vendor
PATH, RUNTIME = sys.argv[1:3]
IMAGE = np.zeros((1, 3, 4, 5), np.float32)
def load(**how): return edgebm.load(PATH, target=RUNTIME, **how)
"""


def python(code: str, runtime: str, *, bundle: Path = SOURCE, limit_s: float = 300) -> str:
    """What a program prints; it must end by itself, with 0 and without a word on stderr."""
    done = child(code, runtime, bundle=bundle, limit_s=limit_s)
    assert (done.returncode, done.stderr) == (0, "")
    return done.stdout


def child(
    code: str, runtime: str, *, bundle: Path = SOURCE, limit_s: float = 300
) -> subprocess.CompletedProcess[str]:
    """Run `code` behind `START`; a program that does not end in time is an error."""
    return subprocess.run(
        [sys.executable, "-c", START + code, str(bundle), runtime],
        env={**os.environ, "PYTHONPATH": str(RUNTIME.parents[1])},
        capture_output=True, text=True, check=False, timeout=limit_s,
    )  # fmt: skip
