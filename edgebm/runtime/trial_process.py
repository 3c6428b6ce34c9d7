"""The process that `trial.py` starts: load one artifact, run it, print the peak in MiB."""

from __future__ import annotations

import json
import math
import re
import sys
from pathlib import Path

import numpy as np

from edgebm.errors import BackendUnavailable
from edgebm.runtime.built import Built, bound
from edgebm.spec import EngineConfig, TensorSpec

UNAVAILABLE = 6  # exit code: the runtime is missing or does not load
_CALLS = 5


def main(folder: str) -> None:
    """Run the job described in `folder` and print one number."""
    root = Path(folder)
    job = json.loads((root / "job.json").read_text())
    files = {short: (root / short).read_bytes() for short in job["files"]}
    inputs, outputs = (
        tuple(map(TensorSpec.from_dict, job[side])) for side in ("inputs", "outputs")
    )
    built = Built(job["runtime"], files, EngineConfig.from_dict(job["config"]), inputs, outputs)
    feeds = {
        spec.name: np.load(root / f"input{k}.npy", allow_pickle=False)
        for k, spec in enumerate(inputs)
    }
    try:
        request = bound(built.open(), inputs, feeds)
    except BackendUnavailable as why:
        print(why, file=sys.stderr)  # noqa: T201 - for the parent process
        sys.exit(UNAVAILABLE)
    for _ in range(_CALLS):
        request.infer()
    print(_peak_mib())  # noqa: T201 - the answer to the parent process


def _peak_mib() -> float:
    """Largest resident size so far; NaN where the system does not tell."""
    status = Path("/proc/self/status").read_text()
    found = re.search(r"^VmHWM:\s*(\d+) kB", status, re.MULTILINE)
    return int(found.group(1)) / 1024 if found else math.nan


if __name__ == "__main__":
    main(sys.argv[1])
