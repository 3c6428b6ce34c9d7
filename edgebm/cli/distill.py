"""`edgebm distill`: a student learns to answer as its teacher does."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import click

from edgebm.cli.arguments import model_faults, model_name, source, source_faults, usage_error
from edgebm.cli.options import data_option, out_option, seed_option, state_options
from edgebm.cli.output import emit_json, json_option, output_faults

EXAMPLE = """\
\b
Examples:
  edgebm distill --teacher large.onnx --student small.onnx -d samples.npz
  edgebm distill --teacher large.onnx --student models.py:small -d samples.npz \\
      -e test.npz --minutes 20 --augment flip --augment shift -o student.onnx
  torchrun --nproc-per-node 2 -m edgebm distill --teacher large.onnx --student small.onnx \\
      -d samples.npz -o student.onnx
"""
_LOSSES = ("outputs", "features", "attention", "relations", "labels")
_WAYS = ("flip", "shift", "cutout", "mixup", "noise", "gain", "time_shift")
_HINT = "Ctrl-C keeps what was done: the same command with --resume goes on from there."


@click.command(epilog=EXAMPLE)
@click.option("--teacher", required=True, metavar="MODEL", help="What is to be learned from.")
@click.option(
    "--student", required=True, metavar="MODEL", help="What learns, with its weights at the start."
)
@data_option("samples; labels are not needed.", required=True)
@click.option(
    "-e",
    "--eval",
    "evaluation",
    metavar="SAMPLES|M:F",
    help="Samples with labels to score on, or a program f(run) -> float.",
)
@click.option("--metric", metavar="NAME|M:F", help="What accuracy means: top1, f1, mean_iou, ...")
@click.option("--minutes", type=float, help="How long. Default: 10, without --steps or --epochs.")
@click.option("--steps", type=int, help="How many steps at most.")
@click.option("--epochs", type=float, help="How often each sample comes at most.")
@click.option("--batch", type=int, default=64, show_default=True, help="Samples of a step.")
@click.option("--rate", type=float, help="Highest learning rate. Default: by the model's family.")
@click.option("--temperature", type=float, default=2.0, show_default=True, help="Of logits.")
@click.option(
    "--loss",
    "losses",
    multiple=True,
    metavar="NAME=WEIGHT",
    help=f"Weight of {', '.join(_LOSSES)}; may repeat. Default: outputs=1, features=1.",
)
@click.option(
    "--outputs",
    type=click.Choice(["auto", "logits", "embedding", "values"]),
    default="auto",
    show_default=True,
    help="What the model's outputs are.",
)
@click.option(
    "--feature",
    "features",
    multiple=True,
    metavar="TEACHER=STUDENT",
    help="Values inside to compare, by their names in the graphs; may repeat.",
)
@click.option(
    "--augment", multiple=True, type=click.Choice(_WAYS), help="Change samples; may repeat."
)
@click.option(
    "--precision",
    type=click.Choice(["auto", "f32", "bf16"]),
    default="auto",
    show_default=True,
    help="Of products in training.",
)
@click.option(
    "--device",
    type=click.Choice(["auto", "cpu", "cuda"]),
    default="auto",
    show_default=True,
    help="Where to train.",
)
@out_option("ONNX file to write. Default: STUDENT.distilled.onnx in this folder.")
@state_options
@seed_option
@click.option("--resume", is_flag=True, help="Go on from FILE.checkpoint.")
@click.option("--force", is_flag=True, help="Replace an existing file; begin anew.")
@json_option
def command(
    teacher: str, student: str, data: str, out: Path | None, as_json: bool, **options: Any
) -> None:
    """Train a STUDENT of any architecture until it answers as its TEACHER does.

    No labels are needed. Both must have the same inputs and outputs. Under torchrun the processes
    train together, and process 0 writes and prints.
    """
    path = out if out is not None else Path(f"{model_name(student)}.distilled.onnx")
    read = (teacher, student, data, options["evaluation"])
    faults = [
        *model_faults("--teacher", teacher),
        *model_faults("--student", student),
        *source_faults("--data", data),
        *source_faults("--eval", options["evaluation"]),
        *output_faults(path, option="--out", force=options["force"], inputs=read),
        *_number_faults(options),
    ]
    losses = _losses(options.pop("losses"), faults)
    if faults:
        raise usage_error(faults, "distill")

    from edgebm.cli.progress import show_progress
    from edgebm.grad.world import leads
    from edgebm.verbs.distill import distill

    options["eval"] = options.pop("evaluation")
    options["features"] = options["features"] or None
    options["state"] = options["state"] or None
    if options["rate"] is None:
        options["rate"] = "auto"
    if losses:
        options["losses"] = losses
    with show_progress(title=path.name if leads() else "") as progress:
        try:
            made = distill(
                source(teacher), source(student), data, out=path, progress=progress, **options
            )
        except KeyboardInterrupt as why:
            click.echo(f"{why}" if str(why) else _HINT, err=True)
            raise
    if made.path is None:
        return  # another process of the same training has the result
    for sentence in _sentences(made.report):
        click.echo(sentence, err=True)
    if as_json:
        emit_json(made.report)
    else:
        click.echo(made.path)


def _number_faults(options: dict[str, Any]) -> list[str]:
    names = ("minutes", "steps", "epochs", "batch", "rate", "temperature")
    faults = [
        f"--{name} {options[name]:g} must be more than 0"
        for name in names
        if options[name] is not None and not options[name] > 0
    ]
    if options["seed"] < 0:
        faults.append(f"--seed {options['seed']} must be 0 or more")
    return faults


def _losses(texts: Sequence[str], faults: list[str]) -> dict[str, float]:
    found: dict[str, float] = {}
    for text in texts:
        name, _, number = text.partition("=")
        try:
            weight = float(number)
        except ValueError:
            weight = -1.0
        if name not in _LOSSES or not 0 <= weight < float("inf"):
            faults.append(
                f"--loss {text} does not read as one of {', '.join(_LOSSES)}, = and 0 or more"
            )
        found[name] = weight
    return found


def _sentences(report: Any) -> list[str]:
    loss, score = report["loss"], report["score"]
    lines = [f"{report['steps']} steps: loss {loss['before']:.4g} -> {loss['after']:.4g}"]
    if score["after"] is not None:
        changed = f"{score['before']:.4g} -> {score['after']:.4g} {score['unit']}"
        teacher = "" if score["teacher"] is None else f"; the teacher has {score['teacher']:.4g}"
        lines.append(f"{score['metric']} {changed}{teacher}")
    lines += [f"note: {note}" for note in report["notes"]]
    return lines + [f"not compared: {s['value']}: {s['reason']}" for s in report["left_out"]]
