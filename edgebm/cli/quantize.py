"""`edgebm quantize`: only the quantization, as an ONNX file."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from edgebm.cli.arguments import (
    launch_faults,
    model_faults,
    model_name,
    refuse_faults,
    source,
    source_faults,
    yaml_faults,
)
from edgebm.cli.options import (
    data_option,
    ignored_option,
    out_option,
    recipe_option,
    seed_option,
    state_options,
    target_option,
)
from edgebm.cli.output import emit_json, json_option, output_faults, write_file

EXAMPLE = """\
\b
Examples:
  edgebm quantize model.onnx -d samples.npz -o model.int8.onnx
  edgebm quantize model.onnx -d samples.npz --runtime openvino
  edgebm quantize model.onnx -d samples.npz -t jetson-orin-nano
  edgebm quantize pruned.onnx -d samples.npz -r int8-accurate --ignored head.conv
"""


@click.command(epilog=EXAMPLE)
@click.argument("model")
@data_option("the samples to calibrate on.")
@target_option("Device whose processor decides how many bits there are.")
@recipe_option
@click.option(
    "--runtime",
    type=click.Choice(["onnxruntime", "openvino", "tensorrt"]),
    help="Whose kernels decide where Q/DQ nodes are placed. Default: onnxruntime where the target "
    "has it.",
)
@out_option("ONNX file to write. Default: NAME.RECIPE.onnx in this folder.")
@ignored_option
@state_options
@seed_option
@click.option("--force", is_flag=True, help="Replace an existing file.")
@json_option
def command(model: str, out: Path | None, force: bool, as_json: bool, **options: Any) -> None:
    """Quantize MODEL and write it as an ONNX file with QuantizeLinear and DequantizeLinear.

    Nothing is measured, chosen or proved: 'edgebm compress' does that, and writes a bundle.
    """
    recipe = Path(options["recipe"]).stem
    path = out if out is not None else Path(f"{model_name(model)}.{recipe}.onnx")
    read = (model, options["data"], options["recipe"])
    faults = [
        *model_faults("MODEL", model),
        *source_faults("--data", options["data"]),
        *launch_faults(),
        *output_faults(path, option="--out", force=force, inputs=read),
    ]
    refuse_faults(faults, yaml_faults(options["recipe"], [options["target"]]), "quantize")

    from edgebm.cli.progress import show_progress
    from edgebm.verbs.quantize import quantize

    options["state"] = options["state"] or None
    with show_progress(title=path.name) as progress:
        made = quantize(source(model), progress=progress, **options)
    content = made.to_bytes()
    write_file(path, content, force=force)
    if as_json:
        quantizers = sum(1 for _ in made.nodes("QuantizeLinear"))
        emit_json({"path": path, "bytes": len(content), "quantize_linear_nodes": quantizers})
    else:
        click.echo(path)
