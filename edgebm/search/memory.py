"""Peak memory of an artifact in a process of its own, as on the device."""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgebm.search.candidates import Candidate, Face

_TIMEOUT_S = 120.0


def peak_memory_mib(
    candidate: Candidate, face: Face, feeds: Mapping[str, NDArray[Any]]
) -> float | None:
    """Largest resident size in MiB of a process that loads the artifact and runs it.

    The interpreter, numpy and the runtime are part of it, as they are on the device. None
    when the process failed or the system does not tell.
    """
    with tempfile.TemporaryDirectory(prefix="edgebm-") as folder:
        root = Path(folder)
        for short, content in candidate.artifact.files.items():
            (root / short).write_bytes(content)
        for k, spec in enumerate(face.inputs):
            np.save(root / f"input{k}.npy", feeds[spec.name])
        job = {
            "runtime": candidate.artifact.runtime,
            "files": sorted(candidate.artifact.files),
            "config": asdict(candidate.config),
            "inputs": [asdict(spec) for spec in face.inputs],
            "outputs": [asdict(spec) for spec in face.outputs],
        }
        (root / "job.json").write_text(json.dumps(job))
        command = [sys.executable, "-m", "edgebm.search.memory_probe", folder]
        try:
            done = subprocess.run(  # noqa: S603 - our own module, no shell
                command, capture_output=True, text=True, timeout=_TIMEOUT_S, check=False
            )
        except subprocess.TimeoutExpired:
            return None
    line = done.stdout.strip().rpartition("\n")[2]
    return float(line) if done.returncode == 0 and line else None
