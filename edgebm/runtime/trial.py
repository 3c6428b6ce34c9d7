"""Run an artifact in a process of its own first: its peak memory, or how it died.

A vendor's kernel can end the process with a signal that no `except` catches: OpenVINO 2026.4
dies of an illegal instruction on CPUs without AVX-512 when an INT8 grouped convolution adds a
residual. That must cost one candidate and not the whole compression.
"""

from __future__ import annotations

import json
import math
import signal
import subprocess
import sys
import tempfile
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np

from edgebm.errors import ResourceError
from edgebm.runtime.built import Built, Feeds

_TIMEOUT_S = 120.0


@dataclass(frozen=True, slots=True)
class Trial:
    """`peak_mib` is the largest resident size of the process; `failed` says why there is none.

    The interpreter, numpy and the runtime are part of the size, as they are on the device.
    """

    peak_mib: float | None
    failed: str = ""


def try_out(built: Built, feeds: Feeds) -> Trial:
    """Load an artifact and run it a few times on one sample, in a new process.

    Raises:
        ResourceError: no process can be started.
        KeyboardInterrupt: somebody ended that process: this one was to end, too.
    """
    with tempfile.TemporaryDirectory(prefix="edgebm-") as folder:
        _write_job(Path(folder), built, feeds)
        command = [sys.executable, "-m", "edgebm.runtime.trial_process", folder]
        try:
            done = subprocess.run(  # noqa: S603 - our own module, no shell
                command, capture_output=True, text=True, timeout=_TIMEOUT_S, check=False
            )
        except subprocess.TimeoutExpired:
            return Trial(None, f"a trial run did not end within {_TIMEOUT_S:g} s")
        except OSError as cause:  # no memory for another process, say
            raise ResourceError(f"a trial run could not be started: {cause}") from cause
    if done.returncode in (-signal.SIGINT, -signal.SIGTERM):
        raise KeyboardInterrupt  # somebody ended both processes; the candidate did not fail
    if done.returncode < 0:
        name = signal.Signals(-done.returncode).name
        return Trial(None, f"{built.runtime} ended its process with {name}")
    last = (done.stderr if done.returncode else done.stdout).strip().rpartition("\n")[2]
    if done.returncode:
        return Trial(None, f"a trial run failed: {last}")
    peak = float(last)
    return Trial(None if math.isnan(peak) else peak)


def _write_job(root: Path, built: Built, feeds: Feeds) -> None:
    for short, content in built.files.items():
        (root / short).write_bytes(content)
    for k, spec in enumerate(built.inputs):
        np.save(root / f"input{k}.npy", feeds[spec.name])
    job = {
        "runtime": built.runtime,
        "files": sorted(built.files),
        "config": asdict(built.config),
        "inputs": [asdict(spec) for spec in built.inputs],
        "outputs": [asdict(spec) for spec in built.outputs],
    }
    (root / "job.json").write_text(json.dumps(job))
