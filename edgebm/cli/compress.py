"""`edgebm compress`: one model in, one measured bundle out."""

from __future__ import annotations

import signal
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType
from typing import Any

import click

from edgebm.cli.arguments import check_arguments, duration_s, model_name, source
from edgebm.cli.options import (
    data_option,
    ignored_option,
    out_option,
    recipe_option,
    seed_option,
    state_options,
)
from edgebm.cli.output import emit_json, json_option, output_faults
from edgebm.runtime.journal import Journal
from edgebm.search.journal import GO_ON, resume_path

EXAMPLE = """\
\b
Examples:
  edgebm compress model.onnx -d samples.npz -o model.edgebm
  edgebm compress model.onnx -d train.npz -e test.npz --metric top1 --max-drop 0.5
  edgebm compress model.onnx -r w8
  edgebm compress encoder.onnx -d text.npz --shapes ids:1x64,1x128 -t raspberry-pi-5
  edgebm compress bert-folder -d texts.jsonl --shapes input_ids:1x128
  edgebm compress step.onnx -d sequences.npz --state h_in:h_out
  edgebm compress speech.onnx -d speech.npz --streaming
\b
A board that cannot be reached from here (FILE on the board: m.edgebm, and back: m.json):
  edgebm compress model.onnx -d samples.npz -t raspberry-pi-5 --all-candidates -o m.edgebm
  edgebm bench m.edgebm --candidates -o m.json
  edgebm compress model.onnx -d samples.npz -t raspberry-pi-5 --measurements m.json
\b
What would be quantized, what not and why, and how long it takes; nothing is written:
  edgebm compress model.onnx -d samples.npz --dry-run
"""


@click.command(epilog=EXAMPLE)
@click.argument("model")
@click.option(
    "-t",
    "--target",
    "targets",
    multiple=True,
    default=("host",),
    metavar="NAME|FILE",
    help="Device to build for; may repeat. Default: host, this machine.",
)
@recipe_option
@data_option(
    "the samples to calibrate on. Without, steps of the recipe that need some are left out."
)
@click.option(
    "-e",
    "--eval",
    "evaluation",
    metavar="SAMPLES|M:F",
    help="Labelled samples to evaluate on, or a function that scores a model. "
    "Default: the last fifth of --data.",
)
@out_option("Bundle to write. Default: NAME.edgebm in this folder.")
@click.option("--metric", metavar="NAME|M:F", help="What accuracy means: top1, f1, mean_iou, ...")
@click.option("--max-drop", type=float, help="Largest loss, in the unit of the metric.")
@click.option("--max-latency-ms", type=float, help="Largest latency (p99) in ms.")
@click.option("--max-size-mb", type=float, help="Largest size in MB.")
@click.option(
    "--gate",
    "gates",
    multiple=True,
    metavar="NAME>=VALUE",
    help="Figure that must be reached on the evaluation samples, such as sensitivity>=0.95; else "
    "no bundle is written, exit code 3. May repeat.",
)
@click.option(
    "--subset-size", type=int, help="Samples to calibrate on. Default: the recipe's, 300."
)
@ignored_option
@state_options
@click.option(
    "--initial-state",
    metavar="FILE.npz",
    help="What states hold before the first step, by input name. Default: zeros.",
)
@click.option(
    "--shapes",
    "shape_texts",
    multiple=True,
    metavar="INPUT:1x64,1x128",
    help="Sizes that get a static copy of their own; may repeat.",
)
@click.option("--threads", type=int, help="Only this number of threads. Default: 1 to all.")
@seed_option
@click.option("--force", is_flag=True, help="Replace an existing bundle.")
@click.option(
    "--keep",
    type=click.Path(path_type=Path),
    metavar="DIR",
    help="Folder to keep the built candidates in.",
)
@click.option(
    "--measure-seconds",
    type=float,
    default=60.0,
    show_default=True,
    help="Time to measure latency in.",
)
@click.option(
    "--budget",
    metavar="TIME",
    help="Limit on the whole run (90s, 20m, 1h); then the best so far is written.",
)
@click.option(
    "--measurements",
    type=click.Path(path_type=Path),
    metavar="FILE",
    help="Reuse the measurements in this file, and keep new ones there. One that 'edgebm bench "
    "--candidates' wrote makes the figures of that board decide.",
)
@click.option(
    "--all-candidates",
    is_flag=True,
    help="Write every candidate into the bundle: 'edgebm bench --candidates' measures them on a "
    "board, and --measurements chooses by that.",
)
@click.option(
    "--dry-run",
    is_flag=True,
    help="Only say what would be done, and about how long it takes.",
)
@json_option
def command(
    model: str,
    out: Path | None,
    shape_texts: tuple[str, ...],
    dry_run: bool,
    as_json: bool,
    **options: Any,
) -> None:
    """Make MODEL small and fast for a device and write it as one bundle.

    MODEL is an .onnx file, a .pt2 program, a model folder of Hugging Face transformers, or
    module:function (or file.py:function) that returns a torch module and its example inputs.
    Every candidate is measured on the real runtime; the fastest one that keeps the limits wins.
    Exit code 3: a limit was missed.

    Ctrl-C ends with the best so far (exit code 130). What was measured lies in FILE.resume until
    a run is complete: the same command goes on from there.
    """
    path = out if out is not None else Path(f"{model_name(model)}.edgebm")
    # A dry run writes nothing: what is wrong with the place is said, and no reason to stop.
    shapes = check_arguments(model, None if dry_run else path, shape_texts, options)
    arguments: dict[str, Any] = {
        "target": list(options["targets"]),
        "recipe": options["recipe"],
        "data": options["data"],
        "eval": options["evaluation"],
        "metric": options["metric"],
        "max_drop": options["max_drop"],
        "max_latency_ms": options["max_latency_ms"],
        "max_size_mb": options["max_size_mb"],
        "gates": options["gates"],
        "subset_size": options["subset_size"],
        "ignored": options["ignored"],
        "state": options["state"] or None,
        "streaming": options["streaming"],
        "initial_state": options["initial_state"],
        "shapes": shapes or None,
        "threads": options["threads"],
        "seed": options["seed"],
        "measure_s": options["measure_seconds"],
        "budget_s": options["budget"] and duration_s(options["budget"]),
    }
    if dry_run:
        _dry_run(model, path, arguments, force=options["force"], as_json=as_json)
        return
    journal = options["measurements"] or resume_path(path)
    if known := Journal(journal).count:
        click.echo(f"note: {journal} holds {known} entries; those that fit are reused", err=True)

    from edgebm.cli.progress import show_progress
    from edgebm.report.table import print_cuts, print_summary, stdout_console
    from edgebm.verbs.compress import compress

    with _ended_by(signal.SIGTERM, journal), show_progress(title=path.name) as progress:
        result = compress(
            source(model),
            **arguments,
            out=path,
            force=options["force"],
            keep=options["keep"],
            measurements=options["measurements"],
            all_candidates=options["all_candidates"],
            progress=progress,
        )
    for sentence in result.notes:
        click.echo(f"note: {sentence}", err=True)
    for sentence in result.report["warnings"]:
        click.echo(f"warning: {sentence}", err=True)
    for sentence in result.report["notes"]:
        click.echo(f"note: {sentence}", err=True)
    if as_json:
        emit_json({"path": result.path, **result.report})
    else:
        print_cuts(result.report, stdout_console())
        print_summary(result.report, stdout_console())
        click.echo(result.path)
    click.get_current_context().exit(result.exit_code)


@contextmanager
def _ended_by(number: signal.Signals, journal: Path) -> Iterator[None]:
    """The signal does what Ctrl-C does, and what was measured by then is told."""

    def interrupt(number: int, frame: FrameType | None) -> None:
        raise KeyboardInterrupt

    before = signal.signal(number, interrupt)
    try:
        yield
    except KeyboardInterrupt:
        if journal.exists():
            click.echo(f"note: what was measured is kept in {journal}: {GO_ON}", err=True)
        raise
    finally:
        signal.signal(number, before)


def _dry_run(
    model: str, path: Path, arguments: dict[str, Any], *, force: bool, as_json: bool
) -> None:
    from edgebm.cli.progress import show_progress
    from edgebm.report.plan_table import print_plan
    from edgebm.report.table import stdout_console
    from edgebm.verbs.plan import plan

    with show_progress() as progress:
        planned = plan(source(model), **arguments, progress=progress)
    inputs = (model, arguments["data"], arguments["eval"], arguments["recipe"])
    planned["warnings"] += output_faults(path, option="--out", force=force, inputs=inputs)
    for sentence in planned["warnings"]:
        click.echo(f"warning: {sentence}", err=True)
    for sentence in planned["notes"]:
        click.echo(f"note: {sentence}", err=True)
    if as_json:
        emit_json(planned)
    else:
        print_plan(planned, stdout_console())
