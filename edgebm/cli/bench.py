"""`edgebm bench`: latency on this device, and whether it is good enough."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

import click

from edgebm.cli.candidates import MEASURE_S, bench_candidates
from edgebm.cli.output import emit_json, json_option, refuse
from edgebm.cli.text import facts
from edgebm.errors import UsageError
from edgebm.runtime.bench import CALLS_NEEDED, Timing
from edgebm.runtime.session import load

EXAMPLE = """\
\b
Examples:
  edgebm bench model.edgebm
  edgebm bench model.edgebm --seconds 60 --require p99=20ms --require max=35ms
  edgebm bench all.edgebm --candidates -o m.json
"""
_SECONDS = 5.0
_UNITS_MS = {"us": 1e-3, "ms": 1.0, "s": 1e3}
_FIELDS = {
    "p50": "p50_ms",
    "p90": "p90_ms",
    "p99": "p99_ms",
    "p99.9": "p999_ms",
    "mean": "mean_ms",
    "max": "max_ms",
}
_LEVELS = {"p90": 90.0, "p99": 99.0, "p99.9": 99.9}


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
    metavar="NAME=TIME",
    help="Exit with 3 if p50, p90, p99, p99.9, mean or max is over TIME, e.g. 20ms. May repeat.",
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
    as_json: bool,
) -> None:
    """Measure the latency of BUNDLE on this device, one call at a time.

    Of a model with states, steps of one stream are measured, which carries them along.

    A percentile is printed only when there were enough calls to know it with 99 % confidence.

    --candidates measures everything that was tried, in turns, and writes what it finds to FILE.
    Where the model is compressed, 'edgebm compress --measurements FILE' chooses by that.
    """
    refuse(_mixed(candidates=candidates, out=out, force=force, others=bool(threads or limits)))
    if candidates and out is not None:
        bench_candidates(bundle, target, out, seconds or MEASURE_S, force=force, as_json=as_json)
        return
    required = parse_limits(limits)
    with load(bundle, target=target, threads=threads) as session:
        timing = session.benchmark(seconds or _SECONDS)
        report = session.report()
        what = "steps of a stream" if session.states else "calls"
    missed = missed_limits(timing, required)
    if as_json:
        emit_json({"timing": asdict(timing), "of": what, "missed": missed, "report": report})
    else:
        click.echo(_text(timing, what))
        click.echo(
            f"{report['target']}/{report['runtime']} {report['runtime_version']}, "
            f"{report['precision']}, {report['threads']} thread(s), {report['device']}"
        )
    for warning in report["warnings"]:
        click.echo(f"warning: {warning}", err=True)
    for sentence in missed:
        click.echo(f"missed: {sentence}", err=True)
    if missed:
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


def parse_limits(texts: Sequence[str]) -> dict[str, float]:
    """`["p99=20ms"]` as `{"p99": 20.0}`, in milliseconds.

    Raises:
        UsageError: lists every text that is no such limit.
    """
    limits: dict[str, float] = {}
    wrong = []
    for text in texts:
        found = re.fullmatch(r"([a-z0-9.]+)=([0-9]*\.?[0-9]+)(us|ms|s)", text.replace(" ", ""))
        if found and found.group(1) in _FIELDS:
            limits[found.group(1)] = float(found.group(2)) * _UNITS_MS[found.group(3)]
        else:
            wrong.append(text)
    if wrong:
        raise UsageError(
            f"--require {', '.join(map(repr, wrong))} is not NAME=TIME",
            hint=f"such as p99=20ms; names: {', '.join(_FIELDS)}; units: {', '.join(_UNITS_MS)}",
        )
    return limits


def missed_limits(timing: Timing, limits: dict[str, float]) -> list[str]:
    """A sentence for each limit that is missed, or cannot be judged."""
    missed = []
    for name, limit in limits.items():
        value = getattr(timing, _FIELDS[name])
        if value is None:
            needed = CALLS_NEEDED[_LEVELS[name]]
            missed.append(
                f"{name} is not known after {timing.calls} calls, {needed} are needed: "
                "measure longer with --seconds"
            )
        elif value > limit:
            missed.append(f"{name} is {value:.4g} ms, {limit:.4g} ms were required")
    return missed


def _text(timing: Timing, what: str) -> str:
    values = {name: getattr(timing, field) for name, field in _FIELDS.items()}
    lines = {
        name: f"{value:.4f} ms"
        if value is not None
        else f"needs {CALLS_NEEDED[_LEVELS[name]]} calls"
        for name, value in values.items()
    }
    return facts({**lines, what: timing.calls})
