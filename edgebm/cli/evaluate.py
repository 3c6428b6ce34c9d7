"""`edgebm evaluate`: the metric of a bundle or of a model."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import click

from edgebm.cli.arguments import model_faults, source_faults, usage_error
from edgebm.cli.options import data_option
from edgebm.cli.output import emit_json, json_option
from edgebm.cli.text import table

_SHOWN = 30

EXAMPLE = """\
\b
Examples:
  edgebm evaluate model.edgebm -d test.npz
  edgebm evaluate model.onnx -d test.npz --metric top1
  edgebm evaluate step.onnx -d sequences.npz --state h_in:h_out
"""


@click.command(epilog=EXAMPLE)
@click.argument("path", metavar="BUNDLE|MODEL")
@data_option("the samples, labels included.")
@click.option(
    "-e",
    "--eval",
    "program",
    metavar="M:F",
    help="A program that scores the model itself: f(run) -> float or dict.",
)
@click.option("--metric", metavar="NAME|M:F", help="What accuracy means: top1, f1, mean_iou, ...")
@click.option(
    "--state",
    multiple=True,
    metavar="INPUT:OUTPUT",
    help="A state of MODEL before and after a call, in place of those that are found; may repeat.",
)
@json_option
def command(
    path: str,
    data: str | None,
    program: str | None,
    metric: str | None,
    state: tuple[str, ...],
    as_json: bool,
) -> None:
    """Measure how good a bundle or a model is, on samples or by a program of your own.

    A model that is no bundle runs in float on ONNX Runtime.
    """
    faults = [
        *model_faults("BUNDLE|MODEL", path),
        *source_faults("--data", data),
        *source_faults("--eval", program),
    ]
    if (data is None) == (program is None):
        faults.append("give either --data or --eval")
    if faults:
        raise usage_error(faults, "evaluate")

    from edgebm.cli.progress import show_progress
    from edgebm.verbs.evaluate import evaluate

    with show_progress() as progress:
        figures = evaluate(
            path,
            data=data,
            eval=program,
            metric=metric,
            state=state or None,
            progress=progress,
        )
    for sentence in figures["warnings"]:
        click.echo(f"warning: {sentence}", err=True)
    if as_json:
        emit_json(figures)
        return
    plain = {key: value for key, value in figures.items() if key not in {"classes", "warnings"}}
    click.echo("\n".join(lines(plain)))
    if figures["classes"]:
        click.echo(f"\n{class_table(figures['classes'])}")


def class_table(classes: Mapping[str, Any]) -> str:
    """The figure of each class, the lowest first, and a sentence on the worst."""
    keys = ("labels", "counts", "values")
    rows = sorted(zip(*(classes[key] for key in keys), strict=True), key=lambda row: row[2])
    shown = [(label, count, f"{value:.2f}") for label, count, value in rows[:_SHOWN]]
    worst = classes["worst"]
    sentences = [f"Worst class: {worst['class']}, {classes['measure']} {worst['value']:.2f}."]
    if len(rows) > _SHOWN:
        sentences.append(f"{len(rows) - _SHOWN} better ones of {len(rows)} classes: see --json.")
    return f"{table(('class', 'samples', classes['measure']), shown)}\n{' '.join(sentences)}"


def lines(figures: Mapping[str, Any], indent: str = "") -> list[str]:
    """One line for each figure, names aligned; groups are indented."""
    width = max((len(str(key)) for key in figures), default=0)
    out = []
    for key, value in figures.items():
        if isinstance(value, Mapping):
            out += [f"{indent}{key}", *lines(value, indent + "  ")]
        else:
            text = f"{value:.6g}" if isinstance(value, float) else str(value)
            out.append(f"{indent}{key:<{width}}  {text}")
    return out
