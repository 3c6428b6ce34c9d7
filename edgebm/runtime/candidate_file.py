"""What a board writes down about the candidates of a bundle, and how the host finds it again."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict
from typing import Any

from edgebm.runtime.built import Feeds, feeds_sha256
from edgebm.runtime.entries import Entry
from edgebm.runtime.turns import Measurement
from edgebm.spec import EngineConfig

# The part of a bundle's provenance that says, by target, what the candidates were made from.
SEARCH = "search"
MADE_FROM, STRUCTURES = "made_from", "structures"
_BOARD, _TIMES = "board", "board times"


def board_key(target: str) -> tuple[str, dict[str, Any]]:
    """Kind and parts of the entry with the facts of the board that is `target`."""
    return _BOARD, {"target": target}


def times_key(
    target: str, structure: str, config: EngineConfig, feeds: Feeds
) -> tuple[str, dict[str, Any]]:
    """Kind and parts of the entry with the times of one candidate.

    They hold everything that decides the times but for the board, its versions and its state.
    `structure` is the hash that the host made of the artifact's graph.
    """
    parts = {
        "target": target,
        "structure": structure,
        "config": asdict(config),
        "sample": feeds_sha256(feeds),
    }
    return _TIMES, parts


def board_entry(target: str, facts: Mapping[str, Any]) -> Entry:
    """The facts of the board, and of the bundle that it measured; JSON types."""
    kind, parts = board_key(target)
    return Entry(kind, parts, dict(facts), target)


def times_entry(
    key: tuple[str, dict[str, Any]], name: str, measured: Measurement, peak_mib: float | None
) -> Entry:
    """What was measured of one candidate, milliseconds and MiB."""
    kind, parts = key
    return Entry(kind, parts, {**asdict(measured), "peak_mib": peak_mib}, told(name, measured))


def times_of(value: Mapping[str, Any]) -> tuple[Measurement, float | None]:
    """The inverse of `times_entry`, from its value."""
    raw = dict(value)
    peak_mib = raw.pop("peak_mib")
    return Measurement(**raw), peak_mib


def told(name: str, measured: Measurement) -> str:
    """One candidate in a line, for people."""
    if measured.failed:
        return f"{name} failed: {measured.failed}"
    p99 = measured.p99_ms
    figures = f"p50 {measured.p50_ms:.4g} ms" if measured.p50_ms else "not timed"
    earned = f", p99 {p99:.4g} ms" if p99 is not None else ""
    return f"{name}: {figures}{earned}, {len(measured.calls_ms)} calls"
