"""The process in which `tensorrt_child` has an engine built: a folder goes in, a plan comes out.

One line of JSON for each event goes to the standard output; the end of the standard input means
that the build is to be stopped, which it is too when the parent process dies.
"""

from __future__ import annotations

import json
import os
import sys
import threading
import time
from pathlib import Path
from typing import Any

from edgebm.errors import EdgebmError, ResourceError
from edgebm.runtime.engines.cuda_runtime import CudaRuntime
from edgebm.runtime.engines.tensorrt_child import TIMINGS
from edgebm.runtime.engines.tensorrt_library import the_tensorrt
from edgebm.spec import EngineConfig, TensorSpec

_REPORT_S = 0.05
_MOST_BYTES, _PART = 1 << 30, 4


def main(folder: str) -> None:
    """Build what `folder` describes."""
    # What the vendor prints must not get between the events.
    events = os.dup(1)
    os.dup2(2, 1)
    lines = _Events(events)
    try:
        _build(Path(folder), lines)
    except EdgebmError as error:
        lines.write(
            {
                "error": type(error).__name__,
                "message": str(error),
                "hint": error.hint,
                "details": error.details,
            }
        )
        sys.exit(1)
    except MemoryError:
        lines.write({"error": ResourceError.__name__, "message": "memory ran out in the build"})
        sys.exit(1)


def _build(root: Path, lines: _Events) -> None:
    job = json.loads((root / "job.json").read_text())
    _, gpu = the_tensorrt()
    from edgebm.runtime.engines.tensorrt_build import Plan, build

    workspace = job["workspace_bytes"]
    if workspace is None:
        workspace = min(_MOST_BYTES, CudaRuntime(gpu.driver).free_bytes() // _PART)
    inputs, outputs = (
        tuple(map(TensorSpec.from_dict, job[side])) for side in ("inputs", "outputs")
    )
    timings = root / TIMINGS
    before = timings.read_bytes() if timings.exists() else None
    plan = Plan(EngineConfig.from_dict(job["config"]), inputs, outputs, workspace, before)
    stop = threading.Event()
    threading.Thread(target=_wait_for_the_end, args=(stop,), daemon=True).start()
    built = build((root / "model.onnx").read_bytes(), plan, lines.progress, stop)
    (root / "plan").write_bytes(built.plan)
    if before is not None:
        timings.write_bytes(built.timings)
    lines.write({"workspace_bytes": workspace})


def _wait_for_the_end(stop: threading.Event) -> None:
    while os.read(0, 1):
        pass
    stop.set()


class _Events:
    """Writes events, and of the progress in one phase twenty a second at most."""

    def __init__(self, file: int) -> None:
        self._file = file
        self._phase, self._next_s = "", 0.0

    def write(self, event: dict[str, Any]) -> None:
        os.write(self._file, json.dumps(event).encode() + b"\n")

    def progress(self, phase: str, done: int, total: int) -> None:
        now = time.monotonic()
        if phase == self._phase and done < total and now < self._next_s:
            return
        self._phase, self._next_s = phase, now + _REPORT_S
        self.write({"phase": phase, "done": done, "total": total})


if __name__ == "__main__":
    main(sys.argv[1])
