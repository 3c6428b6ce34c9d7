"""Measure every candidate of a bundle on this board, for a host that cannot reach it."""

from __future__ import annotations

import time
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from typing import Any

from edgebm.errors import BundleFormat, EdgebmError, UsageError
from edgebm.runtime.board import read_board, stopped_between, throttled_between
from edgebm.runtime.built import bound, built_of
from edgebm.runtime.bundle import Bundle
from edgebm.runtime.candidate_file import (
    MADE_FROM,
    SEARCH,
    STRUCTURES,
    board_entry,
    times_entry,
    times_key,
)
from edgebm.runtime.cpu import usable_threads
from edgebm.runtime.engines import BUILT_APART, Engine
from edgebm.runtime.engines.compiled import Compiled
from edgebm.runtime.engines.vendors import installed_versions
from edgebm.runtime.entries import Entry
from edgebm.runtime.machine import describe_machine
from edgebm.runtime.select import choose_variant
from edgebm.runtime.session import open_variant
from edgebm.runtime.start import Start
from edgebm.runtime.trial import try_out
from edgebm.runtime.turns import OPEN_BYTES, Measurement, Turn, Turns, timed_turn
from edgebm.runtime.values import ValueRules
from edgebm.spec import Variant

Progress = Callable[[str, int, int], None]


@dataclass(frozen=True, slots=True)
class Tested:
    """How a candidate did before it was timed: its peak memory, or why it does not run here.

    `compiled` is what took minutes to build.
    """

    peak_mib: float | None = None
    failed: str = ""
    compiled: Compiled | None = None


@dataclass(frozen=True, slots=True)
class Measured:
    """All that was found out on this board. `results` and `tests` go by `Variant.id`."""

    target: str
    facts: dict[str, Any]
    entries: list[Entry]
    results: dict[str, Measurement]
    tests: dict[str, Tested]


def candidates_of(bundle: Bundle, name: str) -> tuple[str, list[Variant]]:
    """The target that `name` means here ("auto": the first that runs) and its candidates.

    Raises:
        UsageError: the bundle holds no candidates.
        BundleIncompatible: no such target, or this processor lacks what it needs.
    """
    if not bundle.manifest.candidates:
        raise UsageError(
            f"{bundle.path} holds nothing but what was chosen",
            hint="edgebm compress --all-candidates writes a bundle with every candidate",
        )
    target = choose_variant(bundle.manifest, name).target
    return target, [each for each in bundle.manifest.candidates if each.target == target]


def measure_candidates(
    bundle: Bundle, wanted: str, measure_s: float, progress: Progress
) -> Measured:
    """Try every candidate out, re-run its golden samples, and time all of them in turns.

    Each is first run in a process of its own: one that dies there is a failed candidate. The
    rules are those of the host: at least two turns and at most 12, for about `measure_s` seconds;
    then those that are still in the race earn a p99, the fastest first, for as long again at most.

    Raises:
        UsageError, BundleIncompatible: as `candidates_of`.
        BundleFormat: the bundle does not tell what its candidates were made from.
    """
    target, variants = candidates_of(bundle, wanted)
    search = _search(bundle, target, variants)
    tests = tested(bundle, variants, progress)
    race, before = CandidateRace(bundle, variants, tests), read_board()
    race.run(measure_s, lambda done, total: progress("measure", done, total))
    race.earn_p99s(measure_s, lambda done, total: progress("measure p99", done, total))
    after = read_board()
    slowed = [*throttled_between(before, after), *stopped_between(before, after)]
    facts = {
        "machine": {**describe_machine(), "runtimes": installed_versions()},
        "slowed": slowed,
        "bundle": bundle.digest,
        "candidates": [each.id for each in variants],
        "made_with": bundle.manifest.provenance.get("versions", {}),
        MADE_FROM: search[MADE_FROM],
    }
    entries = [board_entry(target, facts)]
    for variant in variants:
        structure = search[STRUCTURES][variant.id]
        key = times_key(target, structure, variant.config, race.feeds)
        peak_mib = tests[variant.id].peak_mib
        entries.append(times_entry(key, variant.id, race.results[variant.id], peak_mib))
    return Measured(target, facts, entries, race.results, tests)


def _search(bundle: Bundle, target: str, variants: Sequence[Variant]) -> dict[str, Any]:
    """What the host will recognize the figures of `target` by."""
    told = bundle.manifest.provenance.get(SEARCH)
    search = told.get(target) if isinstance(told, dict) else None
    ids = {each.id for each in variants}
    if not (
        isinstance(search, dict)
        and MADE_FROM in search
        and isinstance(search.get(STRUCTURES), dict)
        and ids <= search[STRUCTURES].keys()
    ):
        raise BundleFormat(f"{bundle.path} does not tell what its candidates were made from")
    return search


def tested(bundle: Bundle, variants: Sequence[Variant], progress: Progress) -> dict[str, Tested]:
    """Whether each candidate runs here and answers as it should, by `Variant.id`.

    What gives the same answers is run once: thread counts do not matter to them.
    """
    known: dict[tuple[str, ...], Tested] = {}
    found: dict[str, Tested] = {}
    for done, variant in enumerate(variants):
        progress("test", done, len(variants))
        usable = usable_threads()
        if variant.config.threads > usable:
            why = f"{variant.config.threads} threads are wanted, {usable} may be used here"
            found[variant.id] = Tested(failed=why)
            continue
        key = (variant.runtime, variant.config.precision, *sorted(variant.files.values()))
        if key not in known:
            known[key] = _tested(bundle, variant)
        found[variant.id] = known[key]
    progress("test", len(variants), len(variants))
    return found


def _tested(bundle: Bundle, variant: Variant) -> Tested:
    if variant.runtime in BUILT_APART:
        return _tested_once_built(bundle, variant)
    trial = try_out(built_of(bundle, variant), bundle.sample())
    if trial.failed:
        return Tested(failed=trial.failed)
    try:
        open_variant(bundle, variant).close()
    except EdgebmError as error:
        return Tested(trial.peak_mib, str(error))
    return Tested(trial.peak_mib)


def _tested_once_built(bundle: Bundle, variant: Variant) -> Tested:
    """As `_tested`, of what takes minutes to build: what was built is kept for the race."""
    try:
        engine = built_of(bundle, variant).open()
        try:
            compiled = engine.export()
        finally:
            engine.close()
        start = Start(bundle, variant, variant.config, ValueRules())
        start.open(compiled).session.close()
    except EdgebmError as error:
        return Tested(failed=str(error))
    return Tested(compiled=compiled)


class CandidateRace(Turns):
    """The candidates of a bundle, timed in turns on the sample that it holds for that."""

    def __init__(
        self, bundle: Bundle, variants: Sequence[Variant], tests: dict[str, Tested]
    ) -> None:
        super().__init__({v.id: Measurement(failed=tests[v.id].failed) for v in variants})
        self.feeds = bundle.sample()
        self.built = {variant.id: built_of(bundle, variant) for variant in variants}
        self._compiled = {variant.id: tests[variant.id].compiled for variant in variants}
        self._originals = [variant.id for variant in variants if variant.precision == "f32"]
        sizes = (len(data) for each in self.built.values() for data in each.files.values())
        self._keep_open = 2 * sum(sizes) <= OPEN_BYTES
        self._open: dict[str, tuple[Engine, Callable[[], None]]] = {}

    def earn_p99s(self, measure_s: float, progress: Callable[[int, int], None]) -> None:
        """More calls of those that are in the race to its end, while `measure_s` lasts."""
        left = {
            name: result.p50_ms
            for name, result in self.results.items()
            if result.p50_ms is not None and not result.dropped and not result.failed
        }
        end = time.monotonic() + measure_s
        for name in sorted(left, key=lambda name: left[name] or 0.0):
            try:
                self.earn_p99([name], end - time.monotonic(), progress)
            except EdgebmError as error:  # noqa: PERF203 - a handful
                self.results[name].failed = str(error)

    def _timed(self, name: str, turn: int, *, p99: bool) -> Turn:
        try:
            return timed_turn(lambda: self._opened(name), p99=p99)
        finally:
            if not self._keep_open:
                self._close(name)

    def _opened(self, name: str) -> Callable[[], None]:
        if name not in self._open:
            engine = self.built[name].open(self._compiled[name])
            try:
                infer = bound(engine, self.built[name].inputs, self.feeds).infer
            except BaseException:
                engine.close()
                raise
            self._open[name] = engine, infer
        return self._open[name][1]

    def _close(self, name: str) -> None:
        if name in self._open:
            self._open.pop(name)[0].close()

    def _floats(self) -> Collection[str]:
        return self._originals
