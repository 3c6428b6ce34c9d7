"""`edgebm analyze`: which layer is to blame for what quantization costs."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import click

from edgebm.cli.arguments import model_faults, refuse_faults, source, source_faults, yaml_faults
from edgebm.cli.options import (
    data_option,
    ignored_option,
    out_option,
    recipe_option,
    state_options,
    target_option,
)
from edgebm.cli.output import emit_json, json_option, output_faults, write_file

EXAMPLE = """\
\b
Examples:
  edgebm analyze model.onnx -d samples.npz
  edgebm analyze model.onnx -d samples.npz -o analysis.html --top 20
  edgebm analyze model.onnx -d samples.npz --ignored head.conv --json
"""


@click.command(epilog=EXAMPLE)
@click.argument("model")
@data_option("the samples to calibrate on. Required.")
@target_option("Device whose CPU decides how many bits there are.")
@recipe_option
@out_option("HTML page to write, with histograms of every layer.")
@click.option("--top", type=int, default=10, show_default=True, help="Layers to list.")
@ignored_option
@state_options
@click.option(
    "--subset-size", type=int, help="Samples to calibrate on. Default: the recipe's, 300."
)
@click.option("--force", is_flag=True, help="Replace an existing page.")
@json_option
def command(model: str, out: Path | None, top: int, as_json: bool, **options: Any) -> None:
    """Say which layer of MODEL is to blame for what quantization costs, and what to try.

    Each quantized layer is put on integers alone, and left in float alone, and the error is
    measured at the model's outputs. Nothing is built and no speed is measured; 'edgebm compress'
    does that.
    """
    force = options.pop("force")
    options["state"] = options["state"] or None
    _check(model, out, {"top": top, "force": force, **options})

    from edgebm.cli.progress import show_progress
    from edgebm.verbs.analyze import analyze

    with show_progress() as progress:
        found = analyze(source(model), progress=progress, **options)
    for sentence in found["warnings"]:
        click.echo(f"warning: {sentence}", err=True)
    if out is not None:
        from edgebm.report.html import render_analysis

        write_file(out, render_analysis(found).encode(), force=force)
    if as_json:
        emit_json({"page": out, **found})
    else:
        _show(found, top, out)


def _check(model: str, out: Path | None, options: Mapping[str, Any]) -> None:
    """Refuse wrong arguments, all at once, before anything heavy is imported."""
    data, recipe = options["data"], options["recipe"]
    missing = "--data is missing: ranges and errors are measured on samples"
    faults = [
        *model_faults("MODEL", model),
        *source_faults("--data", data),
        *([] if data else [missing]),
    ]
    faults += [
        f"--{key.replace('_', '-')} {options[key]} must be 1 or more"
        for key in ("top", "subset_size")
        if options[key] is not None and options[key] < 1
    ]
    if out is not None:
        read = (model, data, recipe)
        faults += output_faults(out, option="--out", force=options["force"], inputs=read)
    hints = [] if data else ["give samples with -d samples.npz"]
    refuse_faults(faults, yaml_faults(recipe, [options["target"]]), "analyze", hints)


def _show(found: Mapping[str, Any], top: int, page: Path | None) -> None:
    from rich.text import Text

    from edgebm.report.layer_table import print_analysis
    from edgebm.report.table import stdout_console

    console = stdout_console()
    print_analysis(found["analysis"], top, console)
    if not found["analysis"]["layers"]:
        reasons = Counter(str(layer["why"]) for layer in found["layers"])
        for why, count in reasons.most_common():
            console.print(Text(f"  {count} layer{'s' * (count != 1)}: {why}"))
    console.print(Text("No speed was measured; 'edgebm compress' does that.", style="dim"))
    if page is not None:
        click.echo(page)
