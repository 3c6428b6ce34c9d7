"""`edgebm evaluate`: the metric of a bundle or of a model."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import click

from edgebm.cli.arguments import source, source_faults, usage_error
from edgebm.cli.output import emit_json, json_option

EXAMPLE = """\
\b
Examples:
  edgebm evaluate model.edgebm -d test.npz
  edgebm evaluate model.onnx -d test.npz --metric top1
"""


@click.command(epilog=EXAMPLE)
@click.argument("path", metavar="BUNDLE|MODEL")
@click.option(
    "-d",
    "-e",
    "--data",
    "--eval",
    "data",
    required=True,
    metavar="SAMPLES",
    help=".npz file, folder or module:function with the samples, labels included.",
)
@click.option("--metric", metavar="NAME|M:F", help="What accuracy means: top1, f1, miou, ...")
@json_option
def command(path: str, data: str, metric: str | None, as_json: bool) -> None:
    """Measure how good a bundle or a model is on samples."""
    faults = [
        *source_faults("BUNDLE|MODEL", path, folders=False),
        *source_faults("--data", data),
    ]
    if faults:
        raise usage_error(faults, "evaluate")

    from edgebm.cli.progress import show_progress
    from edgebm.compress import evaluate

    with show_progress() as progress:
        progress("evaluate", 0, 0)
        figures = evaluate(source(path), data=data, metric=metric)
    if as_json:
        emit_json(figures)
    else:
        click.echo("\n".join(lines(figures)))


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
