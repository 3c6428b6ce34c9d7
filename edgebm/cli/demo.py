"""`edgebm demo`: the whole way from trained models to bundles, on files that come along."""

from __future__ import annotations

import io
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import click
import numpy as np

from edgebm.cli.output import emit_json, json_option, write_file
from edgebm.demo import CALIBRATION, MODELS, TEST, demo_files
from edgebm.errors import UsageError

EXAMPLE = """\
\b
Example:
  edgebm demo -o digits
"""


# For each model: the whole shall take a minute.
_MEASURE_S = 9.0


@dataclass(frozen=True, slots=True)
class Outcome:
    """One compressed model; `self_test` is the relative error of each output, 0 for equal."""

    bundle: Path
    page: Path
    report: dict[str, Any]
    self_test: dict[str, float]


@click.command(epilog=EXAMPLE)
@click.option(
    "-o",
    "--out",
    type=click.Path(path_type=Path),
    default=Path("edgebm-demo"),
    show_default=True,
    metavar="DIR",
    help="Folder for models, samples, bundles and reports.",
)
@click.option("--quick", is_flag=True, help="Measure for a few seconds only: coarser latencies.")
@click.option("--force", is_flag=True, help="Replace the files of an earlier run.")
@json_option
def command(out: Path, quick: bool, force: bool, as_json: bool) -> None:
    """Compress a small CNN, a small Transformer and a small LSTM and show what came out.

    All were trained on scikit-learn's handwritten digits. It takes a minute on two cores, needs
    no network, and leaves everything it used in one folder, to go on from there.
    """
    _prepare(out, force=force)

    from edgebm.report.table import print_cells, print_summary, stdout_console

    outcomes = []
    for name in MODELS:
        outcome = _compress(name, out, measure_s=4.0 if quick else _MEASURE_S, force=force)
        outcomes.append(outcome)
        if not as_json:
            print_summary(outcome.report, stdout_console())
            print_cells(outcome.report, stdout_console())
            click.echo(f"verified: {_self_test_text(outcome.self_test)}\n")
    if as_json:
        emit_json(
            [
                {
                    "bundle": each.bundle,
                    "page": each.page,
                    "self_test": each.self_test,
                    "report": each.report,
                }
                for each in outcomes
            ]
        )
    else:
        click.echo(_where(outcomes, out))


def _prepare(out: Path, *, force: bool) -> None:
    """The demo's files in `out`.

    Raises:
        UsageError: `out` is a file, cannot be made, or holds files of an earlier run.
    """
    contents = demo_files()
    faults = []
    if out.exists() and not out.is_dir():
        faults.append(f"--out {out} is a file; give a folder")
    elif not out.parent.is_dir():
        faults.append(f"--out {out}: the folder {out.parent} does not exist")
    names = [*contents, *(f"{name}{end}" for name in MODELS for end in (".edgebm", ".html"))]
    there = [name for name in names if (out / name).exists()] if out.is_dir() else []
    if there and not force:
        faults.append(f"--out {out} holds {', '.join(there)}")
    if faults:
        raise UsageError("; ".join(faults), hint="give another folder, or --force to replace")
    try:
        out.mkdir(exist_ok=True)
    except OSError as cause:
        raise UsageError(f"--out {out} cannot be made: {cause.strerror}") from cause
    for name, content in contents.items():
        write_file(out / name, content, force=force)
    write_file(out / "one_image.npz", _first_image(contents[TEST]), force=True)


def _first_image(samples: bytes) -> bytes:
    """An input for `edgebm run`: the first test image as a batch of one."""
    stream = io.BytesIO()
    with np.load(io.BytesIO(samples)) as arrays:
        np.savez(stream, image=arrays["image"][:1])
    return stream.getvalue()


def _compress(name: str, out: Path, *, measure_s: float, force: bool) -> Outcome:
    from edgebm.cli.progress import show_progress
    from edgebm.report.html import render_html
    from edgebm.runtime.session import load
    from edgebm.verbs.compress import compress

    bundle, page = out / f"{name}.edgebm", out / f"{name}.html"
    with show_progress(f"{name}: ") as progress:
        result = compress(
            out / f"{name}.onnx",
            data=out / CALIBRATION,
            eval=out / TEST,
            metric="top1",
            max_drop=1.0,
            out=bundle,
            force=force,
            measure_s=measure_s,
            progress=progress,
        )
    write_file(page, render_html(result.report).encode(), force=force)
    with load(bundle) as session:
        self_test = dict(session.report()["self_test"])
    return Outcome(bundle, page, dict(result.report), self_test)


def _self_test_text(errors: dict[str, float]) -> str:
    worst = max(errors.values(), default=0.0)
    return f"loaded again, golden samples repeated with a relative error of {worst:.2g}"


def _where(outcomes: list[Outcome], out: Path) -> str:
    bundle = outcomes[0].bundle
    listed = [line for each in outcomes for line in (f"  {each.bundle}", f"  {each.page}")]
    return "\n".join(
        [
            "Bundles and reports:",
            *listed,
            "",
            "Use one from Python:",
            "  import edgebm, numpy as np",
            f'  session = edgebm.load("{bundle}")',
            '  print(session.run(np.load("{}")["image"])["scores"].argmax())'.format(
                out / "one_image.npz"
            ),
            "",
            "Or from the shell:",
            f"  edgebm run {bundle} -i {out / 'one_image.npz'} -o scores.npz",
            f"  edgebm verify {bundle}",
        ]
    )
