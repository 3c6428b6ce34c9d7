"""A session over an engine of numpy alone."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np

from edgebm.runtime.runner import Session
from edgebm.runtime.values import ValueRules
from edgebm.spec import EngineConfig, Manifest, Shapes, TensorSpec, Variant


class EchoRequest:
    """Negates every input; counts its calls."""

    cancel = carry = None

    def __init__(self, shapes: Shapes, specs: tuple[TensorSpec, ...]) -> None:
        self.inputs = tuple(np.zeros(shapes[s.name], s.dtype) for s in specs)
        self.outputs = tuple(np.zeros(shapes[s.name], s.dtype) for s in specs)
        self.fixed = self.outputs
        self.calls = 0

    def infer(self) -> None:
        self.calls += 1
        for x, y in zip(self.inputs, self.outputs, strict=True):
            np.negative(x, out=y)


class EchoEngine:
    """An engine for tests of the session alone."""

    runtime, version, device = "echo", "1", ""

    def __init__(self, *specs: TensorSpec, request: type[EchoRequest] = EchoRequest) -> None:
        self.specs, self.kind = specs, request
        self.requests: list[EchoRequest] = []

    def request(self, shapes: Shapes) -> EchoRequest:
        self.requests.append(self.kind(shapes, self.specs))
        return self.requests[-1]

    def executed(self) -> dict[str, int]:
        return {}

    def close(self) -> None: ...


def echo(
    *specs: TensorSpec,
    rules: ValueRules = ValueRules(),  # noqa: B008 - frozen
    request: type[EchoRequest] = EchoRequest,
    **fields: Any,
) -> tuple[Session, EchoEngine]:
    """A session whose outputs are its negative inputs; `fields` are those of its manifest."""
    outputs = tuple(replace(spec, name=f"{spec.name}_out") for spec in specs)
    engine = EchoEngine(*specs, request=request)
    variant = Variant("t", "echo", "f32", {}, EngineConfig(), "1")
    manifest = Manifest("echo", "0", specs, outputs, (variant,), **fields)
    return Session(manifest, engine, {}, rules=rules), engine
