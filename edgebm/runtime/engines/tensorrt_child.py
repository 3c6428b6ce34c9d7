"""Have an engine built in a process of its own: watched, limited in time, and stopped if asked.

A builder that dies, hangs or takes all memory must not do that to the program that loads a model.
"""

from __future__ import annotations

import json
import os
import selectors
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from edgebm.errors import (
    BackendCrashed,
    BackendError,
    BackendFailed,
    BackendLost,
    BackendUnavailable,
    CompileTimeout,
    ResourceError,
)
from edgebm.runtime.engines.building import Building
from edgebm.spec import EngineConfig, TensorSpec

_POLL_S = 0.1
_GRACE_S = 10.0  # that a build may take to notice that it is to stop
_TAIL_BYTES = 2000
# What the child may raise, by name.
_KINDS: dict[str, type[BackendError]] = {
    kind.__name__: kind for kind in (BackendLost, BackendUnavailable, ResourceError)
}
TIMINGS = "timings"  # the file with them, in the folder of a build
_MODULE = "edgebm.runtime.engines.tensorrt_process"
_MEMORY_HELP = (
    "the system kills a process so when memory runs out: close other programs, or give "
    "the build less workspace"
)


def build_in_child(
    model: bytes,
    config: EngineConfig,
    face: tuple[Sequence[TensorSpec], Sequence[TensorSpec]],
    building: Building,
) -> bytes:
    """The plan of an engine for this machine's GPU; `face` are inputs and outputs of the model.

    Raises:
        BackendUnavailable: no driver, no GPU, no TensorRT.
        BackendFailed: TensorRT refuses the model, or `building.is_cancelled` said so; then
            `details["cancelled"]` is True.
        CompileTimeout: it had not ended after `building.limit_s` seconds.
        BackendCrashed: a signal ended the process.
        ResourceError: memory ran out, or no process can be started.
    """
    job = {
        "config": asdict(config),
        "inputs": [asdict(spec) for spec in face[0]],
        "outputs": [asdict(spec) for spec in face[1]],
        "workspace_bytes": building.workspace_bytes,
    }
    files, timings = {"model.onnx": model, "job.json": json.dumps(job).encode()}, building.timings
    if timings is not None:
        files[TIMINGS] = timings.read()
    with _prepared(files) as folder:
        root = Path(folder)
        child = _started(root)
        with child:
            try:
                _Watch(child, building).until_its_end()
            finally:
                if child.poll() is None:
                    child.kill()
        if child.returncode:
            raise _failure(child.returncode, root)
        if timings is not None:
            timings.write((root / TIMINGS).read_bytes())
        return (root / "plan").read_bytes()


def _prepared(files: Mapping[str, bytes]) -> tempfile.TemporaryDirectory[str]:
    """A folder with what the child reads.

    It is its owner's alone: what is read back from it is code to the vendor.
    """
    try:
        folder = tempfile.TemporaryDirectory(prefix="edgebm-")
        try:
            for name, content in files.items():
                (Path(folder.name) / name).write_bytes(content)
        except OSError:
            folder.cleanup()
            raise
    except OSError as cause:
        raise ResourceError(
            f"an engine cannot be built: {cause}", hint="free space for temporary files"
        ) from cause
    return folder


def _started(root: Path) -> subprocess.Popen[bytes]:
    try:
        with (root / "stderr").open("wb") as words:
            return subprocess.Popen(  # noqa: S603 - our own module, no shell
                [sys.executable, "-m", _MODULE, str(root)],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=words,
                # Ctrl-C is for this process, which ends the other one.
                start_new_session=True,
            )
    except OSError as cause:
        raise ResourceError(
            f"a process that builds the engine cannot be started: {cause}", hint="free memory"
        ) from cause


class _Watch:
    """Reads the events of a child until it ends, and ends it where it must."""

    def __init__(self, child: subprocess.Popen[bytes], building: Building) -> None:
        self._child, self._building = child, building
        self._rest = b""

    def until_its_end(self) -> None:
        """Wait for the child to end.

        Raises:
            CompileTimeout, BackendError: as `build_in_child`.
        """
        assert self._child.stdout is not None
        events = self._child.stdout.fileno()
        ends_s = time.monotonic() + self._building.limit_s
        with selectors.DefaultSelector() as selector:
            selector.register(events, selectors.EVENT_READ)
            while True:
                if selector.select(_POLL_S):
                    data = os.read(events, 1 << 16)
                    if not data:
                        break
                    self._take(data)
                if self._building.is_cancelled is not None and self._building.is_cancelled():
                    self._stop()
                    raise BackendFailed(
                        "the build of the engine was cancelled", details={"cancelled": True}
                    )
                if time.monotonic() > ends_s:
                    self._child.kill()
                    raise CompileTimeout(
                        f"TensorRT had not built the engine after {self._building.limit_s:g} s",
                        hint="allow more time, or build it once with 'edgebm build'",
                    )
        self._child.wait()

    def _take(self, data: bytes) -> None:
        *lines, self._rest = (self._rest + data).split(b"\n")
        for line in lines:
            event = json.loads(line)
            if "error" in event:
                raise _told(event)
            if "phase" in event and self._building.progress is not None:
                self._building.progress(event["phase"], event["done"], event["total"])

    def _stop(self) -> None:
        """The end of its input asks the child to end at its next step."""
        assert self._child.stdin is not None
        self._child.stdin.close()
        try:
            self._child.wait(_GRACE_S)
        except subprocess.TimeoutExpired:
            self._child.kill()


def _told(event: dict[str, Any]) -> BackendError:
    """The error that the child raised, by the name of its class."""
    kind = _KINDS.get(event["error"], BackendFailed)
    return kind(event["message"], hint=event.get("hint", ""), details=event.get("details"))


def _failure(code: int, root: Path) -> BackendError:
    """Why a child ended that told nothing."""
    words = (root / "stderr").read_bytes()[-_TAIL_BYTES:].decode(errors="replace").split("\n")
    last = next((line for line in reversed(words) if line.strip()), "no message")
    if code > 0:
        return BackendFailed(f"the build of the engine ended with code {code}: {last}")
    name = signal.Signals(-code).name
    return BackendCrashed(
        f"TensorRT ended the process that built the engine with {name}: {last}",
        hint=_MEMORY_HELP if -code == signal.SIGKILL else "try another version of TensorRT",
        details={"signal": name},
    )
