"""From the artifact of a variant, or from what was compiled of it, to a proved session."""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import Any

from edgebm.runtime.built import built_of
from edgebm.runtime.bundle import Bundle
from edgebm.runtime.checks import Face
from edgebm.runtime.cpu import cpu_name
from edgebm.runtime.engines import RUNTIMES, Engine, import_vendor, open_engine
from edgebm.runtime.engines.compiled import Compiled
from edgebm.runtime.runner import Session
from edgebm.runtime.selftest import self_test, stream_test, tolerance
from edgebm.runtime.values import ValueRules
from edgebm.spec import EngineConfig, Variant


def try_variant(bundle: Bundle, variant: Variant, limit_s: float) -> float | None:
    """Run a variant in a process of its own, on a golden sample or zeros; its peak in MiB.

    Raises:
        BackendError: as `trial.peak_mib`.
    """
    # Most programs never ask for it, and starting processes takes a while to import.
    from edgebm.runtime.trial import peak_mib

    feeds = _example(bundle) or Face(bundle.manifest).zeros()
    return peak_mib(built_of(bundle, variant), feeds, limit_s)


@dataclass(frozen=True, slots=True)
class Opened:
    """A session that passed its tests, and how long opening its engine took."""

    session: Session
    engine: Engine
    report: dict[str, Any]
    open_ms: float


@dataclass(frozen=True, slots=True)
class Start:
    """One variant on its way to a proved session, compiled or read back."""

    bundle: Bundle
    variant: Variant
    config: EngineConfig
    rules: ValueRules

    def engine(self, compiled: Compiled | None = None) -> Engine:
        """Compile the artifact, or read back what was compiled.

        Raises:
            BackendError: the runtime is missing or refuses it.
        """
        manifest = self.bundle.manifest
        files = self.bundle.files(self.variant) if compiled is None else {}
        face = (manifest.inputs, manifest.outputs)
        return open_engine(self.variant.runtime, files, self.config, *face, compiled)

    def open(self, compiled: Compiled | None = None) -> Opened:
        """Open an engine, warm it up and re-run the golden samples.

        Raises:
            BackendError: the runtime is missing or refuses the artifact.
            SelfTestFailed: it gives other answers here than where the bundle was made.
        """
        bundle, variant = self.bundle, self.variant
        if variant.runtime in RUNTIMES:
            import_vendor(variant.runtime)  # so that its import is not timed as compiling
        begin = time.perf_counter()
        engine = self.engine(compiled)
        open_ms = (time.perf_counter() - begin) * 1e3
        try:
            report = _report(bundle, variant, engine, self.config.threads)
            session = Session(bundle.manifest, engine, report, bundle.initial, self.rules)
            session.warm_up(self.config.static_shapes, _example(bundle))
            errors = self_test(bundle, variant, session.run)
            report["self_test"] |= errors
            report["stream_test"] |= stream_test(bundle, variant, session.run, session.stream)
            report["self_test_tolerance"] |= {name: tolerance(variant, name) for name in errors}
        except BaseException:
            engine.close()
            raise
        return Opened(session, engine, report, open_ms)


def _report(bundle: Bundle, variant: Variant, engine: Engine, threads: int) -> dict[str, Any]:
    manifest = bundle.manifest
    warnings = []
    if variant.runtime_version and engine.version != variant.runtime_version:
        warnings.append(
            f"made with {variant.runtime} {variant.runtime_version}, running on {engine.version}"
        )
    if not manifest.constraints_met:
        warnings.append("the bundle misses a constraint it was made for")
    layers = engine.executed()
    if layers and variant.layers.get("int8", 0) and not layers.get("int8", 0):
        warnings.append(
            f"no layer runs in int8 here, {variant.layers['int8']} did where it was made"
        )
    made = variant.cells
    cells = {name: ran for name, ran in engine.cells().items() if name in made}
    slower = sorted(name for name in cells if made[name] == "int8" != cells[name])
    if slower:
        warnings.append(
            f"these recurrent layers ran in int8 where it was made, not here: {slower}"
        )
    return {
        "name": manifest.name,
        "bundle": bundle.path,
        "digest": bundle.digest,
        "edgebm_version": manifest.edgebm_version,
        "target": variant.target,
        "runtime": variant.runtime,
        "runtime_version": engine.version,
        "device": engine.device or cpu_name(),
        "precision": variant.precision,
        "layers": layers,
        "layers_when_made": dict(variant.layers),
        "cells": cells,
        "cells_when_made": dict(variant.cells),
        "threads": threads,
        "golden": manifest.golden,
        "self_test": {},
        "stream_test": {},
        "self_test_tolerance": {},
        "constraints_met": manifest.constraints_met,
        "warnings": warnings,
    }


def _example(bundle: Bundle) -> dict[str, Any] | None:
    if not bundle.manifest.golden:
        return None
    inputs, _ = bundle.golden(0)
    return {spec.name: x for spec, x in zip(bundle.manifest.inputs, inputs, strict=True)}
