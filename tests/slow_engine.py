"""A runtime "slow" whose builds wait for the test; what it has built is ONNX Runtime."""

from __future__ import annotations

import threading
import weakref
from dataclasses import dataclass, field
from typing import Any

import pytest
from gated_engine import LONG_S

from edgebm.errors import BackendFailed
from edgebm.runtime import cache, session, start
from edgebm.runtime.engines import Engine, open_engine
from edgebm.runtime.engines.building import Building
from edgebm.runtime.engines.compiled import Compiled
from edgebm.runtime.engines.onnxruntime import OnnxRuntimeEngine

RUNTIME = "slow"
CANCELLED = "the build was stopped"


class SlowEngine(OnnxRuntimeEngine):
    """What was compiled are the files themselves."""

    def __init__(self, files: Any, *rest: Any) -> None:
        self._files = files
        super().__init__(files, *rest)
        self.runtime, self.version = RUNTIME, "1"

    def export(self) -> Compiled:  # type: ignore[override]
        return Compiled((self._files["model.onnx"],), ({},))


@dataclass
class SlowRuntime:
    """Builds end when `go` is set, with `error` if there is one."""

    go: threading.Event = field(default_factory=threading.Event)
    begun: threading.Semaphore = field(default_factory=lambda: threading.Semaphore(0))
    ended: threading.Event = field(default_factory=threading.Event)
    error: Exception | None = None
    builds: list[Building] = field(default_factory=list)
    others: list[weakref.ref[Engine]] = field(default_factory=list)

    def open(
        self,
        runtime: str,
        files: Any,
        config: Any,
        inputs: Any,
        outputs: Any,
        compiled: Compiled | None = None,
        *,
        building: Building | None = None,
    ) -> Engine:
        if runtime != RUNTIME:
            engine = open_engine(runtime, files, config, inputs, outputs, compiled)
            self.others.append(weakref.ref(engine))
            return engine
        if compiled is not None:
            files = {"model.onnx": compiled.blobs[0]}
        else:
            self._build(building)
        return SlowEngine(files, config, inputs, outputs)

    def wait_begun(self) -> None:
        assert self.begun.acquire(timeout=LONG_S)

    def _build(self, building: Building | None) -> None:
        assert building is not None, "nobody allowed this build"
        self.builds.append(building)
        try:
            if building.progress is not None:
                building.progress("tactics", 1, 4)
            self.begun.release()
            while not self.go.wait(0.01):
                if building.is_cancelled is not None and building.is_cancelled():
                    raise BackendFailed(CANCELLED)
            if self.error is not None:
                raise self.error
        finally:
            self.ended.set()


def installed(monkeypatch: pytest.MonkeyPatch) -> SlowRuntime:
    """Sessions find the runtime "slow", and the cache keeps what it compiles."""
    slow, facts = SlowRuntime(), cache.cache_facts
    monkeypatch.setattr(start, "open_engine", slow.open)
    monkeypatch.setattr(session, "BUILT_SLOWLY", {RUNTIME})
    monkeypatch.setattr(
        cache,
        "cache_facts",
        lambda name, config: {"version": "1"} if name == RUNTIME else facts(name, config),
    )
    return slow
