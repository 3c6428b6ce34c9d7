"""`edgebm report`: the report page of a bundle, or two bundles side by side."""

from __future__ import annotations

import webbrowser
from pathlib import Path
from typing import Any

import click

from edgebm.cli.options import out_option
from edgebm.cli.output import emit_json, json_option, output_faults, refuse, write_file
from edgebm.errors import GateFailed, UsageError
from edgebm.report.comparison import compare_reports
from edgebm.report.gates import GateLimits, check_limits, option, verdict
from edgebm.report.read import read_report, report_for
from edgebm.report.rows import Report

EXAMPLE = """\
\b
Examples:
  edgebm report model.edgebm -o report.html
  edgebm report released.edgebm new.edgebm -o comparison.html
\b
As a gate in CI, exit code 3 when a limit is missed:
  edgebm report released.edgebm new.edgebm --max-drop 0.3 --max-larger 1.05
  edgebm report released.edgebm new.edgebm --max-slower 1.1 --max-worst-class-drop 2
"""


@click.command(epilog=EXAMPLE)
@click.argument("bundle", type=click.Path(path_type=Path))
@click.argument("other", type=click.Path(path_type=Path), required=False)
@out_option("Page to write. Default: report.html in this folder; none for two bundles.")
@click.option("--open", "show", is_flag=True, help="Show the page in a browser.")
@click.option("--force", is_flag=True, help="Replace an existing page.")
@click.option("-t", "--target", metavar="NAME", help="Compare this target. Default: the first.")
@click.option(
    "--max-drop",
    type=float,
    metavar="X",
    help="Gate: OTHER may lose this much accuracy, in the printed unit of the metric.",
)
@click.option(
    "--max-slower",
    type=float,
    metavar="RATIO",
    help="Gate: OTHER may take this many times the p50 latency, such as 1.1; same CPU only.",
)
@click.option(
    "--max-larger",
    type=float,
    metavar="RATIO",
    help="Gate: OTHER may be this many times as large, such as 1.05.",
)
@click.option(
    "--max-worst-class-drop",
    type=float,
    metavar="X",
    help="Gate: no class may lose more than this in OTHER.",
)
@json_option
def command(
    bundle: Path, other: Path | None, target: str | None, as_json: bool, **options: Any
) -> None:
    """Write the report of BUNDLE as one HTML page and print its table.

    With OTHER, a second bundle, the two are compared: what was chosen, accuracy, latency, size,
    layers whose precision changed, and whether model, samples, CPU and versions are the same;
    -o writes that as a page. Gates hold OTHER against BUNDLE: exit code 3 when one fails, 2 when
    one cannot be checked. Nothing is run: the figures are those in the bundles.
    """
    out, show, force = (options.pop(key) for key in ("out", "show", "force"))
    limits = GateLimits(**options)
    page = out if out is not None else Path("report.html")
    if other is None:
        _check_alone(target, limits)
        refuse(output_faults(page, option="--out", force=force, inputs=(bundle,)))
        _write_report(bundle, page, force=force, as_json=as_json)
        code = 0
    else:
        _check_pair(limits, out, show=show)
        if out is not None:
            refuse(output_faults(out, option="--out", force=force, inputs=(bundle, other)))
        first, second = (report_for(read_report(p), target, str(p)) for p in (bundle, other))
        code = _compare((first, second), (str(bundle), str(other)), limits, out, force, as_json)
    if show:
        webbrowser.open(page.resolve().as_uri())
    click.get_current_context().exit(code)


def _check_alone(target: str | None, limits: GateLimits) -> None:
    """Refuse what only makes sense with a second bundle."""
    given = [*([] if target is None else ["--target"]), *map(option, limits.given)]
    if given:
        raise UsageError(
            f"{', '.join(given)} compare{'s' if len(given) == 1 else ''} two bundles, and there "
            "is one",
            hint="name the one that is good enough first: edgebm report old.edgebm new.edgebm",
        )


def _check_pair(limits: GateLimits, out: Path | None, *, show: bool) -> None:
    check_limits(limits)
    if show and out is None:
        raise UsageError("--open shows a page, and none is written", hint="give -o FILE too")


def _write_report(bundle: Path, page: Path, *, force: bool, as_json: bool) -> None:
    from edgebm.report.html import render_html
    from edgebm.report.layer_table import TOP, print_analysis
    from edgebm.report.table import (
        print_candidates,
        print_cells,
        print_cuts,
        print_summary,
        stdout_console,
    )

    report = read_report(bundle)
    write_file(page, render_html(report).encode(), force=force)
    if as_json:
        emit_json({"page": page, **report})
        return
    console = stdout_console()
    print_cuts(report, console)
    print_summary(report, console)
    print_candidates(report, console)
    print_cells(report, console)
    if report.get("analysis"):
        print_analysis(report["analysis"], TOP, console)
    click.echo(page)


def _compare(
    reports: tuple[Report, Report],
    names: tuple[str, str],
    limits: GateLimits,
    out: Path | None,
    force: bool,
    as_json: bool,
) -> int:
    """Print the comparison, write its page if one is wanted, and return the exit code."""
    from edgebm.report.comparison_table import print_compared
    from edgebm.report.html import render_comparison
    from edgebm.report.table import stdout_console

    compared = compare_reports(reports, names, limits)
    if out is not None:
        write_file(out, render_comparison(*reports, compared, names).encode(), force=force)
    if as_json:
        emit_json({**({} if out is None else {"page": out}), **compared})
    else:
        print_compared(*reports, compared, stdout_console())
        if out is not None:
            click.echo(out)
    if compared["passed"]:
        return 0
    # The sentences are part of the result, which stands on stdout whole.
    click.echo(f"error: {verdict(compared['gates'])}", err=True)
    return GateFailed.exit_code
