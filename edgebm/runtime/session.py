"""Load a bundle: verify it, compile the variant for this processor, prove it, hand it over."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING, Any

from edgebm.errors import (
    BackendError,
    BackendLost,
    BundleIncompatible,
    EdgebmError,
    EngineStale,
    ResourceError,
    SelfTestFailed,
    UsageError,
)
from edgebm.runtime.build_rules import BuildRules, wanted_build
from edgebm.runtime.build_rules import Wanted as WantedBuild
from edgebm.runtime.bundle import Bundle
from edgebm.runtime.cache_place import CacheFolder, Wanted, wanted_cache
from edgebm.runtime.cache_slot import open_slot
from edgebm.runtime.cpu import usable_threads
from edgebm.runtime.engines import BUILT_APART, PLAIN, RUNTIMES
from edgebm.runtime.engines.building import Building
from edgebm.runtime.engines.vendors import usable_version
from edgebm.runtime.proof import PathLike, read_trusted, wanted_trust
from edgebm.runtime.runner import Session
from edgebm.runtime.select import choose_variant, wanted_targets
from edgebm.runtime.start import Start, try_variant
from edgebm.runtime.values import Mode, ValueRules
from edgebm.spec import Variant

if TYPE_CHECKING:
    from edgebm.runtime.trust import Trust

__all__ = ["Session", "load", "open_variant"]
Failures = list[tuple[str, EdgebmError]]
# Another variant may do where these were raised; anything else is about the bundle or the call.
_FALLBACK = (BackendError, BundleIncompatible, SelfTestFailed)


def load(  # noqa: PLR0913 - one call opens a session
    path: PathLike,
    target: str | Sequence[str] = "auto",
    threads: int | None = None,
    trust: Trust | PathLike | Sequence[PathLike] | None = None,
    *,
    nonfinite: Mode = "error",
    envelope: Mode = "mark",
    cache: Wanted = None,
    trial_s: float | None = None,
    build: WantedBuild = "never",
) -> Session:
    """Verify a bundle, compile the variant for this processor, prove it and return a session.

    Args:
        path: a file that `edgebm compress` wrote.
        target: "auto" takes the first variant this processor can run. A target, a runtime or
            "target/runtime" means that one or an error. Only a list allows a fallback, and
            `Session.report` says so.
        threads: threads for one call; None takes what was measured as best. Never more than this
            process may use.
        trust: files of public keys, one of which must have signed the bundle, or a `Trust`, which
            can refuse older releases, too. None checks no signature, and `Session.report` says so.
        nonfinite: what NaN and infinite inputs do: "error" refuses the call, "mark" answers and
            says so in `Answer.doubts`, "allow" does not look.
        envelope: the same for values far outside of what calibration saw: further than half the
            width of its range.
        cache: folder for compiled models, so that later starts need not compile. None takes the
            default folder where `edgebm build` has made it or `EDGEBM_CACHE` names it; True makes
            it; False: none. Without a folder that can be used the model is compiled, and
            `Session.report` says so.
        trial_s: first run the variant in a process of its own, for so many seconds at most. A
            runtime that ends that process or hangs in it is an error here, and with a list the
            next one is taken. It costs a start of Python and of the runtime. None: no such
            process. A runtime that builds in a process of its own anyhow is not tried out.
        build: for a runtime whose engine takes minutes to build (TensorRT), where none is in the
            cache. "never": `EngineStale`; run `edgebm build` before. "wait": it is built now.
            "background": `target` is a list, the next one of it answers meanwhile, and the
            session goes over to the new engine between two calls; `Session.report` says how far
            it is. A `BuildRules` sets limits, too.

    Raises:
        BundleError: the file is no bundle, is damaged, is for another device, is not signed by a
            trusted key, is older than one accepted before, or fails its self-test.
        BackendError: the runtime is missing or refuses the artifact.
        EngineStale: its engine is not built; one of BackendError.
        UsageError: an argument is wrong.
    """
    names = wanted_targets(target)
    if threads is not None and (type(threads) is not int or threads < 1):
        raise UsageError(f"threads must be 1 or more, not {threads!r}")
    if trial_s is not None and not (type(trial_s) in {int, float} and trial_s > 0):
        raise UsageError(f"trial_s must be a number of seconds above 0, not {trial_s!r}")
    builds = _builds(build, names)
    rules = ValueRules(nonfinite, envelope)
    place = wanted_cache(cache)
    proof = read_trusted(path, wanted_trust(trust))

    def opened(name: str, failures: Failures, building: Building | None) -> Session:
        variant = choose_variant(proof.bundle.manifest, name)
        request = _request(target, failures) | proof.facts()
        if trial_s is not None and variant.runtime not in BUILT_APART:
            request["trial_peak_mib"] = try_variant(proof.bundle, variant, trial_s)
        return open_variant(
            proof.bundle, variant, threads, request, rules, place, building=building
        )

    now = builds.building() if builds.when == "wait" else None
    failures: Failures = []
    session = _first(names, failures, partial(opened, building=now))
    try:
        proof.accept()
        if builds.when == "background":
            _build_behind(session, failures, opened, builds)
    except BaseException:
        session.close()
        raise
    return session


def _builds(build: WantedBuild, names: Sequence[str]) -> BuildRules:
    rules = wanted_build(build)
    if rules.when == "background" and len(names) == 1:
        raise UsageError(
            "build is 'background', but with one target there is nothing that answers meanwhile",
            hint="give a list, such as target=['tensorrt', 'onnxruntime'], or build='wait'",
        )
    return rules


def _build_behind(
    session: Session,
    failures: Failures,
    opened: Callable[[str, Failures, Building | None], Session],
    rules: BuildRules,
) -> None:
    """Build the first engine that was preferred to that of `session`, if it was not built."""
    for number, (name, error) in enumerate(failures):
        if isinstance(error, EngineStale):
            from edgebm.runtime.background import BackgroundBuild

            make = partial(opened, name, failures[:number])
            session.improve(BackgroundBuild(session, name, make, rules))
            return


def _first(
    names: Sequence[str], failures: Failures, opened: Callable[[str, Failures], Session]
) -> Session:
    """The first session that opens; `failures` gets those that did not."""
    for name in names:
        try:
            return opened(name, failures)
        except _FALLBACK as error:  # noqa: PERF203 - a handful of names
            failures.append((name, error))
    if len(failures) == 1:
        raise failures[0][1]
    reasons = "; ".join(f"{name}: {error}" for name, error in failures)
    raise type(failures[0][1])(
        f"none of {list(names)} can be used: {reasons}", hint=failures[0][1].hint
    ) from failures[0][1]


def open_variant(  # noqa: PLR0913 - one way for loading, building and proving
    bundle: Bundle,
    variant: Variant,
    threads: int | None = None,
    request: dict[str, Any] | None = None,
    rules: ValueRules = ValueRules(),  # noqa: B008 - frozen
    cache: CacheFolder | None = None,
    *,
    building: Building | None = None,
) -> Session:
    """Compile one variant of a verified bundle, warm it up and re-run its golden samples.

    `request` is what the report shall say about the choice of this variant. What is read back
    from `cache` in place of compiling is warmed up and tested in the same way. Without `building`
    nothing is compiled that takes minutes.

    Raises:
        EngineStale: it would take minutes, and `cache` has nothing that fits.
        BackendError: the runtime is missing or refuses the artifact.
        SelfTestFailed: it gives other answers here than where the bundle was made.
    """
    asked = threads or variant.config.threads
    config = replace(variant.config, threads=min(asked, usable_threads()))
    request = request or _request("auto", [])
    with open_slot(cache, bundle.manifest, variant, config) as slot:
        wanted = replace(building or PLAIN, timings=slot.timings)
        start = Start(bundle, variant, config, rules, wanted)
        opened = None
        if (compiled := slot.take()) is not None:
            try:
                opened = start.open(compiled)
            except (BackendLost, ResourceError):
                raise  # this says nothing of the entry, and compiling needs more of both
            except (BackendError, SelfTestFailed) as why:
                slot.reject(why)
        if opened is None:
            if building is None and variant.runtime in BUILT_APART:
                raise _not_built(bundle, variant, slot.report["why"])
            opened = start.open()
            try:
                slot.keep(opened.engine, opened.open_ms, start.engine)
            except BaseException:
                opened.engine.close()
                raise
    report = opened.report
    if config.threads < asked:
        report["warnings"].append(f"{asked} threads asked for, {config.threads} may be used here")
    report["warnings"] += slot.warnings
    report["cache"] = {**slot.report, "open_ms": round(opened.open_ms, 1)}
    report |= request
    try:
        opened.session.settle()
    except BaseException:
        opened.session.close()
        raise
    return opened.session


def _not_built(bundle: Bundle, variant: Variant, why: str) -> EngineStale:
    if variant.runtime in RUNTIMES:
        usable_version(variant.runtime)  # a runtime that is missing is what there is to say
    return EngineStale(
        f"the engine of {variant.target}/{variant.runtime} is not built on this device ({why}), "
        "and that can take minutes",
        hint=f"run 'edgebm build {bundle.path} --target {variant.runtime}' once, as the user that "
        "runs the program, or load with build='wait', or with build='background' and a list of "
        "targets",
    )


def _request(
    target: str | Sequence[str], failures: Sequence[tuple[str, EdgebmError]]
) -> dict[str, Any]:
    return {
        "requested": target if isinstance(target, str) else list(target),
        "degraded": bool(failures),
        "why": "; ".join(f"{name}: {error}" for name, error in failures),
        "trial_peak_mib": None,
        "build": None,
    }
