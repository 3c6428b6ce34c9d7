"""Load a bundle: verify it, compile the variant for this processor, prove it, hand it over."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from edgebm.errors import (
    BackendError,
    BundleIncompatible,
    BundleUntrusted,
    EdgebmError,
    SelfTestFailed,
    UsageError,
)
from edgebm.runtime.bundle import Bundle, read_bundle
from edgebm.runtime.container import SIGNATURE
from edgebm.runtime.cpu import cpu_name, usable_threads
from edgebm.runtime.engines import Engine, open_engine
from edgebm.runtime.runner import Session
from edgebm.runtime.select import choose_variant, wanted_targets
from edgebm.runtime.selftest import self_test, stream_test, tolerance
from edgebm.runtime.values import Mode, ValueRules
from edgebm.spec import Variant

__all__ = ["Session", "load", "open_variant"]
# Another variant may do where these were raised; anything else is about the bundle or the call.
_FALLBACK = (BackendError, BundleIncompatible, SelfTestFailed)


def load(
    path: str | os.PathLike[str],
    target: str | Sequence[str] = "auto",
    threads: int | None = None,
    trust: Sequence[str] | None = None,
    *,
    nonfinite: Mode = "error",
    envelope: Mode = "mark",
) -> Session:
    """Verify a bundle, compile the variant for this processor, prove it and return a session.

    Args:
        path: a file that `edgebm compress` wrote.
        target: "auto" takes the first variant this processor can run. A target, a runtime or
            "target/runtime" means that one or an error. Only a list allows a fallback, and
            `Session.report` says so.
        threads: threads for one call; None takes what was measured as best. Never more than this
            process may use.
        trust: public keys that must have signed the bundle.
        nonfinite: what NaN and infinite inputs do: "error" refuses the call, "mark" answers and
            says so in `Answer.doubts`, "allow" does not look.
        envelope: the same for values far outside of what calibration saw: further than half the
            width of its range.

    Raises:
        BundleError: the file is no bundle, is damaged, is for another device, is not signed by a
            trusted key, or fails its self-test.
        BackendError: the runtime is missing or refuses the artifact.
        UsageError: an argument is wrong.
    """
    names = wanted_targets(target)
    if threads is not None and (type(threads) is not int or threads < 1):
        raise UsageError(f"threads must be 1 or more, not {threads!r}")
    rules = ValueRules(nonfinite, envelope)
    bundle = read_bundle(path)
    _check_trust(bundle, trust)
    failures: list[tuple[str, EdgebmError]] = []
    for name in names:
        try:
            variant = choose_variant(bundle.manifest, name)
            request = _request(target, failures)
            return open_variant(bundle, variant, threads, request, rules)
        except _FALLBACK as error:  # noqa: PERF203 - a handful of names
            failures.append((name, error))
    if len(failures) == 1:
        raise failures[0][1]
    reasons = "; ".join(f"{name}: {error}" for name, error in failures)
    raise type(failures[0][1])(
        f"none of {list(names)} can be used: {reasons}", hint=failures[0][1].hint
    ) from failures[0][1]


def open_variant(
    bundle: Bundle,
    variant: Variant,
    threads: int | None = None,
    request: dict[str, Any] | None = None,
    rules: ValueRules = ValueRules(),  # noqa: B008 - frozen
) -> Session:
    """Compile one variant of a verified bundle, warm it up and re-run its golden samples.

    `request` is what the report shall say about the choice of this variant.

    Raises:
        BackendError: the runtime is missing or refuses the artifact.
        SelfTestFailed: it gives other answers here than where the bundle was made.
    """
    manifest = bundle.manifest
    asked = threads or variant.config.threads
    config = replace(variant.config, threads=min(asked, usable_threads()))
    engine = open_engine(
        variant.runtime, bundle.files(variant), config, manifest.inputs, manifest.outputs
    )
    try:
        report = _report(bundle, variant, engine, config.threads)
        if config.threads < asked:
            report["warnings"].append(
                f"{asked} threads asked for, {config.threads} may be used here"
            )
        report |= request or _request("auto", [])
        session = Session(manifest, engine, report, bundle.initial, rules)
        session.warm_up(config.static_shapes, _example(bundle))
        errors = self_test(bundle, variant, session.run)
        report["self_test"] |= errors
        report["stream_test"] |= stream_test(bundle, variant, session.run, session.stream)
        report["self_test_tolerance"] |= {name: tolerance(variant, name) for name in errors}
        session.count_anew()
    except BaseException:
        engine.close()
        raise
    return session


def _request(
    target: str | Sequence[str], failures: Sequence[tuple[str, EdgebmError]]
) -> dict[str, Any]:
    return {
        "requested": target if isinstance(target, str) else list(target),
        "degraded": bool(failures),
        "why": "; ".join(f"{name}: {error}" for name, error in failures),
    }


def _check_trust(bundle: Bundle, trust: Sequence[str] | None) -> None:
    if trust is None:
        return
    signed = SIGNATURE in bundle.members
    raise BundleUntrusted(
        f"{bundle.path}: {'this edgebm cannot check its signature' if signed else 'is not signed'}"
        ", and keys to trust were given",
        hint="load without trust= to accept it as it is",
    )


def _report(bundle: Bundle, variant: Variant, engine: Engine, threads: int) -> dict[str, Any]:
    manifest = bundle.manifest
    warnings = []
    if engine.version != variant.runtime_version:
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
        "device": cpu_name(),
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
