"""`edgebm report`: the report page of a bundle, or two bundles side by side."""

from __future__ import annotations

import webbrowser
from pathlib import Path

import click

from edgebm.cli.output import emit_json, json_option, output_faults, refuse, write_file
from edgebm.errors import UsageError
from edgebm.report.rows import Report, check_report, comparison_rows
from edgebm.runtime.bundle import read_bundle
from edgebm.runtime.schema import parse_json

EXAMPLE = """\
\b
Examples:
  edgebm report model.edgebm -o report.html
  edgebm report first.edgebm second.edgebm
"""


@click.command(epilog=EXAMPLE)
@click.argument("bundle", type=click.Path(path_type=Path))
@click.argument("other", type=click.Path(path_type=Path), required=False)
@click.option(
    "-o",
    "--out",
    type=click.Path(path_type=Path),
    metavar="FILE",
    help="Page to write. Default: report.html in this folder.",
)
@click.option("--open", "show", is_flag=True, help="Show the page in a browser.")
@click.option("--force", is_flag=True, help="Replace an existing page.")
@json_option
def command(
    bundle: Path, other: Path | None, out: Path | None, show: bool, force: bool, as_json: bool
) -> None:
    """Write the report of BUNDLE as one HTML page and print its table.

    With OTHER, a second bundle, the two are compared and no page is written.
    """
    page = out if out is not None else Path("report.html")
    if other is None:
        refuse(output_faults(page, option="--out", force=force, inputs=(bundle,)))
    report = read_report(bundle)
    if other is not None:
        if out is not None or show:
            raise UsageError(
                "--out and --open are for the report of one bundle",
                hint="leave them out, or name one bundle",
            )
        _compare((bundle, report), (other, read_report(other)), as_json=as_json)
        return

    from edgebm.report.html import render_html
    from edgebm.report.layer_table import TOP, print_analysis
    from edgebm.report.table import print_candidates, print_summary, stdout_console

    write_file(page, render_html(report).encode(), force=force)
    if as_json:
        emit_json({"page": page, **report})
    else:
        console = stdout_console()
        print_summary(report, console)
        print_candidates(report, console)
        if report.get("analysis"):
            print_analysis(report["analysis"], TOP, console)
        click.echo(page)
    if show:
        webbrowser.open(page.resolve().as_uri())


def read_report(path: Path) -> Report:
    """The `report.json` of a bundle.

    Raises:
        BundleError: the bundle is damaged, or its report is missing or of another version.
        UsageError: there is no such file, or the bundle was written without a report.
    """
    members = read_bundle(path).members
    if "report.json" not in members:
        raise UsageError(
            f"{path} holds no report", hint="only bundles of 'edgebm compress' hold one"
        )
    return check_report(parse_json(bytes(members["report.json"]), f"{path}: report.json"))


def _compare(first: tuple[Path, Report], second: tuple[Path, Report], *, as_json: bool) -> None:
    names = (str(first[0]), str(second[0]))
    if as_json:
        rows = comparison_rows(first[1], second[1])
        emit_json(
            {
                "bundles": names,
                "rows": [
                    {"label": r.label, "first": r.before, "second": r.after, "change": r.change}
                    for r in rows
                ],
                "first": first[1]["after"],
                "second": second[1]["after"],
            }
        )
        return

    from edgebm.report.table import print_comparison, stdout_console

    print_comparison(first[1], second[1], names, stdout_console())
