"""`edgebm bench --candidates`: a board measures what the host cannot, and writes it down."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import click

from edgebm.cli.output import emit_json, output_faults, refuse, write_file
from edgebm.cli.text import facts, table
from edgebm.errors import BackendFailed
from edgebm.runtime.bundle import Bundle
from edgebm.runtime.candidates import Measured, measure_candidates
from edgebm.runtime.entries import journal_bytes
from edgebm.runtime.turns import Measurement

MEASURE_S = 60.0


def bench_candidates(
    bundle: Bundle, target: str, out: Path, seconds: float, *, force: bool, as_json: bool
) -> None:
    """Measure the candidates of `bundle` and write `out`, whole or not at all.

    Raises:
        UsageError: `out` cannot be written, or the bundle holds no candidates.
        BackendFailed: none of them runs here; nothing is written.
    """
    refuse(output_faults(out, option="--out", force=force, inputs=(bundle.path,)))
    found = measure_candidates(bundle, target, seconds, _show)
    failed = {name: each.failed for name, each in found.results.items() if each.failed}
    for name, why in failed.items():
        click.echo(f"warning: {name} failed: {why}", err=True)
    for sentence in found.facts["slowed"]:
        click.echo(f"warning: {sentence}: measure again when the board keeps its pace", err=True)
    if len(failed) == len(found.results):
        raise BackendFailed(
            "no candidate runs here: the reasons are above", hint="'edgebm doctor' shows runtimes"
        )
    write_file(out, journal_bytes(found.entries), force=force)
    if as_json:
        emit_json({"path": out, **found.facts, "measured": _dicts(found)})
        return
    machine = found.facts["machine"]
    told = {key: machine[key] for key in ("cpu", "threads", "governor")}
    click.echo(facts({"target": found.target, **told}) + "\n")
    heads = ("candidate", "p50 ms", "p99 ms", "calls", "peak MiB", "")
    click.echo(table(heads, [_row(found, name) for name in _fastest_first(found)]))
    click.echo(out)


def _show(step: str, done: int, total: int) -> None:
    """Progress, a line each time something begins."""
    if step != "measure p99" or done >= total:
        click.echo(f"{step} {done}/{total}", err=True)


def _fastest_first(found: Measured) -> list[str]:
    never = float("inf")
    return sorted(found.results, key=lambda name: found.results[name].p50_ms or never)


def _row(found: Measured, name: str) -> Sequence[object]:
    times, peak = found.results[name], found.tests[name].peak_mib
    memory = "-" if peak is None else f"{peak:.1f}"
    return name, _ms(times.p50_ms), _ms(times.p99_ms), len(times.calls_ms), memory, _note(times)


def _note(times: Measurement) -> str:
    if times.failed:
        return "failed"
    return f"left: {times.dropped}" if times.dropped else ""


def _ms(value: float | None) -> str:
    return "-" if value is None else f"{value:.4f}"


def _dicts(found: Measured) -> list[dict[str, Any]]:
    return [
        {
            "name": name,
            "p50_ms": times.p50_ms,
            "p99_ms": times.p99_ms,
            "turns": times.turns_ms,
            "calls": len(times.calls_ms),
            "dropped": times.dropped,
            "failed": times.failed,
            "peak_mib": found.tests[name].peak_mib,
        }
        for name, times in found.results.items()
    ]
