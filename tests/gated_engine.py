"""A session over a stand-in engine whose calls wait for the test: it negates its input.

With what tests of frame loops over it have in common.
"""

from __future__ import annotations

import threading
import time
from dataclasses import replace
from typing import Any

import numpy as np

from edgebm.errors import BackendFailed
from edgebm.runtime.frames import FrameResult
from edgebm.runtime.pipeline import Pipeline
from edgebm.runtime.runner import Session
from edgebm.spec import EngineConfig, Manifest, Shapes, TensorSpec, Variant

LONG_S = 60.0


class Gate:
    """Lets calls through while it is open. `before` is called in each call, and may raise."""

    can_cancel = False

    def __init__(self) -> None:
        self._open = threading.Event()
        self._open.set()
        self._entered = threading.Semaphore(0)
        self._stopped = False
        self.before: Any = lambda: None

    @property
    def is_open(self) -> bool:
        return self._open.is_set()

    def close(self) -> None:
        """Make calls wait."""
        self._open.clear()

    def open(self) -> None:
        """Let them go on."""
        self._open.set()

    def cancel(self) -> None:
        """Make the call that waits fail, and let later ones through."""
        self._stopped = True
        self._open.set()

    def wait_entered(self) -> None:
        """Wait until one more call has begun."""
        assert self._entered.acquire(timeout=LONG_S)

    def pass_through(self) -> None:
        self._entered.release()
        assert self._open.wait(LONG_S)
        if self._stopped:
            self._stopped = False
            raise BackendFailed("stopped")
        self.before()


class _Request:
    def __init__(self, gate: Gate, shapes: Shapes, spec: TensorSpec) -> None:
        self._gate = gate
        self.inputs = (np.zeros(shapes[spec.name], spec.dtype),)
        self.outputs = (np.zeros(shapes[spec.name], spec.dtype),)
        self.fixed = self.outputs
        self.cancel = gate.cancel if gate.can_cancel else None

    def infer(self) -> None:
        self._gate.pass_through()
        np.negative(self.inputs[0], out=self.outputs[0])


class _Engine:
    runtime, version, device = "gated", "1", ""

    def __init__(self, gate: Gate, spec: TensorSpec) -> None:
        self._gate, self._spec = gate, spec

    def request(self, shapes: Shapes) -> _Request:
        return _Request(self._gate, shapes, self._spec)

    def executed(self) -> dict[str, int]:
        return {}

    def cells(self) -> dict[str, str]:
        return {}

    def close(self) -> None: ...


def gated_session(*shape: int | str, **fields: Any) -> tuple[Session, Gate]:
    """A model `x -> y` of float32 with this shape, and the gate that its calls go through."""
    spec, gate = TensorSpec("x", "float32", shape), Gate()
    variant = Variant("t", "gated", "f32", {}, EngineConfig(), "1")
    outputs = (replace(spec, name="y"),)
    manifest = Manifest("gated", "0", (spec,), outputs, (variant,), **fields)
    return Session(manifest, _Engine(gate, spec), {}), gate  # type: ignore[arg-type]


def x(value: float) -> np.ndarray[Any, Any]:
    """An input of shape [2]."""
    return np.full(2, value, np.float32)


def got(pipeline: Pipeline) -> FrameResult:
    """The next result."""
    result = pipeline.get(LONG_S)
    assert result is not None
    return result


def wait_until(condition: Any) -> None:
    """Look every 10 ms, for a minute."""
    for _ in range(6000):
        if condition():
            return
        time.sleep(0.01)
    raise AssertionError("it never came about")


def push_and_finish(pipeline: Pipeline, gate: Gate, *values: float) -> None:
    """Each frame's result is there before the next frame is pushed."""
    for value in values:
        pipeline.push(x(value))
        gate.wait_entered()
        wait_until(lambda: pipeline._queue._running is None)
