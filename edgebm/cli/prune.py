"""`edgebm prune`: take out what matters least, as an ONNX file."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

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
from edgebm.cli.options import data_option, ignored_option, out_option, seed_option, target_option
from edgebm.cli.output import emit_json, json_option, output_faults, write_file

if TYPE_CHECKING:
    from edgebm.passes.catalog import AnyStep

EXAMPLE = """\
\b
Examples:
  edgebm prune model.onnx -d samples.npz -s 0.5 -o pruned.onnx
  edgebm prune model.onnx -d samples.npz --blocks 0.4 --round-to 16
  edgebm prune model.onnx -d samples.npz -s 0.3 --of units --importance activation
\b
A pruned model answers worse until the original has taught it:
  edgebm distill --teacher model.onnx --student pruned.onnx -d samples.npz -o taught.onnx
"""


@click.command(epilog=EXAMPLE)
@click.argument("model")
@data_option("samples. Required; labels are not needed.")
@click.option(
    "-s", "--sparsity", type=float, help="Fraction of the cost that goes with units. Default: 0.5."
)
@click.option("--blocks", type=float, help="Fraction of the cost of whole blocks that goes first.")
@click.option(
    "--of",
    type=click.Choice(["macs", "latency", "units"]),
    default="macs",
    show_default=True,
    help="What --sparsity is a fraction of.",
)
@click.option(
    "--importance",
    type=click.Choice(["magnitude", "activation", "taylor", "fisher"]),
    default="fisher",
    show_default=True,
    help="How units are ranked.",
)
@click.option("--round-to", type=int, help="Widths end on multiples. Default: as the CPU counts.")
@click.option(
    "--kinds",
    metavar="LIST",
    help="Of channels,neurons,heads,hidden,embedding. Default: all but embedding.",
)
@click.option("--rounds", type=int, default=1, show_default=True, help="Rank and cut in turns.")
@target_option("Device where it is to be fast.")
@out_option("ONNX file to write. Default: NAME.pruned.onnx in this folder.")
@ignored_option
@seed_option
@click.option(
    "--no-measure", is_flag=True, help="Time nothing, and write it even if it is not faster."
)
@click.option("--force", is_flag=True, help="Replace an existing file.")
@json_option
def command(
    model: str,
    data: str | None,
    out: Path | None,
    no_measure: bool,
    force: bool,
    as_json: bool,
    **options: Any,
) -> None:
    """Cut channels, neurons, heads, hidden units or whole blocks out of MODEL.

    Exit code 3: the cut model was measured and is not faster. Nothing is trained here: 'edgebm
    distill' does that, and 'edgebm compress -r prune-int8' does all in one run.
    """
    path = out if out is not None else Path(f"{model_name(model)}.pruned.onnx")
    faults = [
        *model_faults("MODEL", model),
        *source_faults("--data", data),
        *([] if data else ["--data is missing: what matters is seen on samples"]),
        *_number_faults(options),
        *launch_faults(),
        *output_faults(path, option="--out", force=force, inputs=(model, data)),
    ]
    refuse_faults(faults, yaml_faults(None, [options["target"]]), "prune")

    from edgebm.cli.progress import show_progress
    from edgebm.verbs.prune import prune

    with show_progress(title=path.name) as progress:
        made = prune(
            source(model),
            data,
            steps=_steps(options),
            target=options["target"],
            ignored=options["ignored"],
            seed=options["seed"],
            measure=not no_measure,
            progress=progress,
        )
    content = made.model.to_bytes()
    write_file(path, content, force=force)
    for skip in made.skips:
        where = "" if skip.node == "?" else f"{skip.node}: "
        click.echo(f"note: {where}{skip.reason}", err=True)
    if as_json:
        emit_json({"path": path, "notes": made.notes, "float_ms": made.float_ms})
        return
    for sentence in made.notes:
        click.echo(sentence)
    if made.float_ms is not None:
        before, after = made.float_ms
        click.echo(f"in float {before:.3g} ms before, {after:.3g} ms now")
    click.echo(path)


def _steps(options: dict[str, Any]) -> list[AnyStep]:
    from edgebm.passes.drop_blocks import DropBlocks
    from edgebm.passes.prune import Prune

    steps: list[AnyStep] = []
    if options["blocks"] is not None:
        share: dict[str, Any] = {"sparsity": options["blocks"]}
        steps.append(DropBlocks(**share))
    if options["sparsity"] is not None or not steps:
        chosen: dict[str, Any] = {key: options[key] for key in ("of", "importance", "rounds")}
        if options["sparsity"] is not None:
            chosen["sparsity"] = options["sparsity"]
        if options["round_to"] is not None:
            chosen["round_to"] = options["round_to"]
        if options["kinds"] is not None:
            chosen["kinds"] = tuple(options["kinds"].split(","))
        steps.append(Prune(**chosen))
    return steps


def _number_faults(options: dict[str, Any]) -> list[str]:
    faults = [
        f"--{key} {options[key]:g} must be 0 or more and less than 1: the fraction that goes"
        for key in ("sparsity", "blocks")
        if options[key] is not None and not 0 <= options[key] < 1
    ]
    faults += [
        f"--{key.replace('_', '-')} {options[key]} must be 1 or more"
        for key in ("round_to", "rounds")
        if options[key] is not None and options[key] < 1
    ]
    kinds = {"channels", "neurons", "heads", "hidden", "embedding"}
    unknown = sorted(set((options["kinds"] or "channels").split(",")) - kinds)
    if unknown:
        faults.append(f"--kinds has no {', '.join(unknown)}; there are {', '.join(sorted(kinds))}")
    return faults
