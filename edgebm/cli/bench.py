"""`edgebm bench`: latency on this device, and whether it is good enough."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import click

from edgebm.cli.candidates import MEASURE_S, bench_candidates
from edgebm.cli.limits import FIELDS, calls_needed, missed_limits, parse_limits
from edgebm.cli.options import trust_option
from edgebm.cli.output import emit_json, json_option, refuse
from edgebm.cli.text import facts
from edgebm.runtime.bench import Timing
from edgebm.runtime.board import Board, read_board, stopped_between, throttled_between
from edgebm.runtime.proof import read_trusted, wanted_trust
from edgebm.runtime.session import load

EXAMPLE = """\
\b
Examples:
  edgebm bench model.edgebm
  edgebm bench model.edgebm --seconds 60 --require p99=20ms,max=35ms
  edgebm bench all.edgebm --candidates -o m.json
"""
_SECONDS = 5.0


@click.command(epilog=EXAMPLE)
@click.argument("bundle", type=click.Path(path_type=Path))
@click.option(
    "--seconds",
    type=click.FloatRange(min=0, min_open=True),
    help="How long to measure. p99 needs 662 calls, p99.9 needs 6636. Default: 5, and 60 for "
    "--candidates.",
)
@click.option("--target", default="auto", show_default=True, help="Target or runtime to use.")
@click.option("--threads", type=click.IntRange(min=1), help="Default: as measured.")
@click.option(
    "--require",
    "limits",
    multiple=True,
    metavar="NAME=TIME,...",
    help="Exit with 3 if p50, p90, p95, p99, p99.9, mean or max is over TIME, such as 800us, "
    "20ms or 1s, or is not known, or the run is not valid. May repeat.",
)
@click.option(
    "--candidates",
    is_flag=True,
    help="Measure all candidates of a bundle of 'compress --all-candidates' for that to choose.",
)
@click.option(
    "-o",
    "--out",
    type=click.Path(path_type=Path),
    metavar="FILE",
    help="With --candidates: the file for 'edgebm compress --measurements'.",
)
@click.option("--force", is_flag=True, help="Replace an existing FILE.")
@trust_option
@json_option
@click.pass_context
def command(
    ctx: click.Context,
    /,
    *,
    bundle: Path,
    seconds: float | None,
    target: str,
    threads: int | None,
    limits: tuple[str, ...],
    candidates: bool,
    out: Path | None,
    force: bool,
    trust: tuple[Path, ...] | None,
    as_json: bool,
) -> None:
    """Measure the latency of BUNDLE on this device, one call at a time.

    Of a model with states, steps of one stream are measured, which carries them along.

    A percentile is printed only when there were enough calls to know it with 99 % confidence. A
    run in which the board was throttled is INVALID. One stream, one call after the other: this is
    no MLPerf result.

    --candidates measures everything that was tried, in turns, and writes what it finds to FILE.
    Where the model is compressed, 'edgebm compress --measurements FILE' chooses by that.
    """
    refuse(_mixed(candidates=candidates, out=out, force=force, others=bool(threads or limits)))
    if candidates and out is not None:
        opened = read_trusted(bundle, wanted_trust(trust)).bundle
        bench_candidates(opened, target, out, seconds or MEASURE_S, force=force, as_json=as_json)
        return
    seconds = seconds or _SECONDS
    required = parse_limits(limits)
    with load(bundle, target=target, threads=threads, trust=trust) as session:
        before = read_board()
        timing = session.benchmark(seconds)
        after = read_board()
        report = session.report()
        what = "steps of a stream" if session.states else "calls"
    missed = missed_limits(timing, required, seconds)
    invalid = throttled_between(before, after)
    warnings = [*report["warnings"], *after.hot, *stopped_between(before, after)]
    if as_json:
        emit_json(
            {
                "timing": asdict(timing),
                "of": what,
                "required": required,
                "missed": missed,
                "valid": not invalid,
                "invalid": invalid,
                "warnings": warnings,
                "board": {"before": before.to_dict(), "after": after.to_dict()},
                "report": report,
            }
        )
    else:
        click.echo(_text(timing, what, report, (before, after)))
    for kind, sentences in (
        ("warning", warnings),
        ("INVALID", invalid),
        ("missed", missed),
    ):
        for sentence in sentences:
            click.echo(f"{kind}: {sentence}", err=True)
    if missed or (required and invalid):
        ctx.exit(3)


def _mixed(*, candidates: bool, out: Path | None, force: bool, others: bool) -> list[str]:
    """Options that do not go together."""
    if not candidates:
        given = [name for name, on in (("--out", out is not None), ("--force", force)) if on]
        return [f"{' and '.join(given)}: only with --candidates"] if given else []
    faults = [] if out is not None else ["--candidates writes a file: name it with --out"]
    if others:
        faults.append("--candidates takes neither --threads nor --require: it measures them all")
    return faults


def _text(
    timing: Timing, what: str, report: Mapping[str, Any], boards: tuple[Board, Board]
) -> str:
    lines: dict[str, object] = {}
    for name, field in FIELDS.items():
        value = getattr(timing, field)
        known = value is not None
        lines[name] = f"{value:.4f} ms" if known else f"needs {calls_needed(name)} calls"
    layers = ", ".join(f"{count} {precision}" for precision, count in report["layers"].items())
    lines |= {
        what: timing.calls,
        "runtime": f"{report['runtime']} {report['runtime_version']} ({report['target']})",
        "precision": report["precision"] + (f" (layers that ran: {layers})" if layers else ""),
        "threads": report["threads"],
        "device": report["device"],
        "clock": _span([board.clock_mhz for board in boards], "MHz"),
        "temperature": _span([board.temperature_c for board in boards], "C"),
        "run": "INVALID" if throttled_between(*boards) else "valid",
    }
    return facts(lines)


def _span(values: Sequence[float | None], unit: str) -> str:
    """A figure before and after."""
    first, last = values
    if first is None or last is None:
        return "not told by this system"
    return f"{first:.0f} to {last:.0f} {unit}"
