"""A runtime "slow" whose builds wait for the test; what it has built is ONNX Runtime."""

from __future__ import annotations

import threading
import weakref
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from gated_engine import LONG_S
from graphs import parse

from edgebm.bundle_writer import write_bundle
from edgebm.errors import BackendFailed
from edgebm.runtime import cache, session, start
from edgebm.runtime.engines import Engine, open_engine
from edgebm.runtime.engines.building import Building
from edgebm.runtime.engines.compiled import Compiled
from edgebm.runtime.engines.onnxruntime import OnnxRuntimeEngine
from edgebm.runtime.runner import Session
from edgebm.spec import EngineConfig, Manifest, StateSpec, TensorSpec, Variant

RUNTIME = "slow"
BOTH = [RUNTIME, "onnxruntime"]
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
    error: BaseException | None = None
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
        building: Building,
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

    def _build(self, building: Building) -> None:
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
    monkeypatch.setattr(session, "BUILT_APART", {RUNTIME})
    monkeypatch.setattr(
        cache,
        "cache_facts",
        lambda name, config: {"version": "1"} if name == RUNTIME else facts(name, config),
    )
    return slow


def slow_bundle(folder: Path) -> Path:
    """A model that tells who answers: `y` is `x` + `who` + `h`; each call adds `who` to `h`."""
    text = """g (float[n] x, float[1] h, float[1] k) => (float[n] y, float[1] who, float[1] h_out)
        { a = Add(x, k) y = Add(a, h) who = Identity(k) h_out = Add(h, k) }"""
    members, variants = {}, []
    for number, runtime in enumerate(BOTH[::-1], 1):
        path = f"variants/t/{runtime}/model.onnx"
        members[path] = parse(text, k=np.array([number], np.float32)).to_bytes()
        config = EngineConfig(static_shapes=({"x": (2,), "h": (1,)},))
        files = {"model.onnx": path}
        variants.append(Variant("t", runtime, "f32", files, config, "1"))
    x, h = TensorSpec("x", "float32", ("n",)), TensorSpec("h", "float32", (1,))
    y, who, h_out = replace(x, name="y"), replace(h, name="who"), replace(h, name="h_out")
    manifest = Manifest(
        "slow", "0", (x, h), (y, who, h_out), tuple(variants),
        states=(StateSpec("h", "h_out", ""),), axes={"n": (1, 9)},
    )  # fmt: skip
    return write_bundle(folder / "slow.edgebm", manifest, members)


def asked(session: Session, size: int = 2) -> float:
    """Who answers: 1 is ONNX Runtime, 2 the engine that was built."""
    answer = session.run({"x": np.zeros(size, np.float32), "h": np.zeros(1, np.float32)})
    np.testing.assert_array_equal(answer["y"], np.repeat(answer["who"], size))
    return float(answer["who"][0])


def state(session: Session) -> str:
    """How far the build is."""
    return str(session.report()["build"]["state"])
