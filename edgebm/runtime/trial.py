"""Run an artifact in a process of its own first: its peak memory, or how it died.

A vendor's kernel can end the process with a signal that no `except` catches: OpenVINO 2026.4
dies of an illegal instruction on CPUs without AVX-512 when an INT8 grouped convolution adds a
residual. That must cost one candidate and not the whole compression, and on a device not the
program that loads it.
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

from edgebm.errors import (
    BackendCrashed,
    BackendFailed,
    BackendUnavailable,
    CompileTimeout,
    ResourceError,
)
from edgebm.runtime.built import Built, Feeds
from edgebm.runtime.engines import BUILT_APART
from edgebm.runtime.trial_process import UNAVAILABLE

TRIAL_S = 120.0  # that a trial run may take


@dataclass(frozen=True, slots=True)
class Trial:
    """`peak_mib` is the largest resident size of the process; `failed` says why there is none."""

    peak_mib: float | None
    failed: str = ""


def try_out(built: Built, feeds: Feeds) -> Trial:
    """`peak_mib` of an artifact that may fail.

    Raises:
        ResourceError, KeyboardInterrupt: as `peak_mib`.
    """
    try:
        return Trial(peak_mib(built, feeds, TRIAL_S))
    except (BackendCrashed, BackendFailed, BackendUnavailable, CompileTimeout) as why:
        return Trial(None, str(why))


def peak_mib(built: Built, feeds: Feeds, limit_s: float) -> float | None:
    """Load an artifact and run it a few times on one sample, in a new process.

    Returns:
        Its largest resident size in MiB, None where the system does not tell. Interpreter, numpy
        and runtime are part of it, as they are on the device. None, and nothing is run, of a
        runtime that compiles in a process of its own anyway.

    Raises:
        BackendCrashed: it ended that process.
        CompileTimeout: it had not ended after `limit_s` seconds.
        BackendUnavailable: its runtime is missing or does not load.
        BackendFailed: the vendor refused it.
        ResourceError: no process can be started.
        KeyboardInterrupt: somebody ended that process: this one was to end, too.
    """
    if built.runtime in BUILT_APART:
        return None
    with tempfile.TemporaryDirectory(prefix="edgebm-") as folder:
        _write_job(Path(folder), built, feeds)
        command = [sys.executable, "-m", "edgebm.runtime.trial_process", folder]
        try:
            done = subprocess.run(  # noqa: S603 - our own module, no shell
                command, capture_output=True, text=True, timeout=limit_s, check=False
            )
        except subprocess.TimeoutExpired as cause:
            raise CompileTimeout(f"a trial run did not end within {limit_s:g} s") from cause
        except OSError as cause:  # no memory for another process, say
            raise ResourceError(f"a trial run could not be started: {cause}") from cause
    if done.returncode in (-signal.SIGINT, -signal.SIGTERM):
        raise KeyboardInterrupt  # somebody ended both processes; the candidate did not fail
    if done.returncode < 0:
        name = signal.Signals(-done.returncode).name
        raise BackendCrashed(f"{built.runtime} ended its process with {name}")
    last = (done.stderr if done.returncode else done.stdout).strip().rpartition("\n")[2]
    if done.returncode == UNAVAILABLE:
        raise BackendUnavailable(last, hint="'edgebm doctor' shows what there is")
    if done.returncode:
        raise BackendFailed(f"a trial run failed: {last}")
    peak = float(last)
    return None if math.isnan(peak) else peak


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
