"""The `edgebm` command: finds the command that was asked for and reports its failures.

Commands are thin: parse, call the library, print. Each is imported when it is used, never
before, so that `edgebm --help` answers at once and device commands run without the host half.
"""

from __future__ import annotations

import difflib
import os
import signal
import sys
import traceback as tracebacks
from collections.abc import Mapping, Sequence
from importlib import import_module
from types import FrameType
from typing import Any

import click

from edgebm.cli.output import emit_json
from edgebm.errors import BackendUnavailable, EdgebmError, ResourceError, UsageError

Table = Mapping[str, tuple[str, str]]

HOST: Table = {
    "compress": ("edgebm.cli.compress:command", "Make a model small and fast for a device."),
    "prune": ("edgebm.cli.prune:command", "Only cut a model, as an ONNX file."),
    "quantize": ("edgebm.cli.quantize:command", "Only quantize a model, as an ONNX file."),
    "analyze": ("edgebm.cli.analyze:command", "Say which layer quantization harms, and why."),
    "distill": (
        "edgebm.cli.distill:command",
        "Teach a student model by a teacher, without labels.",
    ),
    "evaluate": ("edgebm.cli.evaluate:command", "Measure a bundle or a model on samples."),
    "report": (
        "edgebm.cli.report:command",
        "Write the report page, or hold a bundle against another.",
    ),
    "export": ("edgebm.cli.export:command", "Take the plain ONNX or IR files out of a bundle."),
    "keygen": ("edgebm.cli.keygen:command", "Make a key pair for signing bundles."),
    "sign": ("edgebm.cli.sign:command", "Sign a bundle, so that devices know who made it."),
    "targets": ("edgebm.cli.targets:command", "List the devices that are known."),
    "recipes": ("edgebm.cli.recipes:command", "List the recipes that come along."),
    "demo": ("edgebm.cli.demo:command", "Compress three small models and show what came out."),
}
DEVICE: Table = {
    "run": ("edgebm.cli.run:command", "Run a bundle on the arrays of an .npz file."),
    "bench": ("edgebm.cli.bench:command", "Measure the latency of a bundle on this device."),
    "build": ("edgebm.cli.build:command", "Compile a bundle now, so that it starts faster later."),
    "verify": ("edgebm.cli.verify:command", "Check a bundle and its golden samples here."),
    "inspect": ("edgebm.cli.inspect:command", "Show what is in a bundle; lint an ONNX file."),
    "doctor": ("edgebm.cli.doctor:command", "Show what this device has and what is missing."),
}
COMMANDS: Table = {**HOST, **DEVICE}

EXAMPLE = """\
\b
Examples:
  edgebm compress model.onnx -d samples.npz --dry-run
  edgebm compress model.onnx -d samples.npz -o model.edgebm
  edgebm report released.edgebm model.edgebm --max-drop 0.3
  edgebm run model.edgebm -i input.npz -o output.npz
"""

# Import name of a package -> the extra that brings it.
_EXTRAS = dict.fromkeys(
    ("onnx", "onnx_ir", "pydantic", "yaml", "rich", "jinja2", "matplotlib", "ml_dtypes"),
    "compress",
) | {"torch": "train", "onnxscript": "train"}


class Commands(click.Group):
    """The commands of COMMANDS, imported one at a time."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in COMMANDS:
            return None
        module, attribute = COMMANDS[cmd_name][0].split(":")
        command = getattr(import_module(module), attribute)
        if not isinstance(command, click.Command):
            raise TypeError(f"{module}:{attribute} is not a click command")
        return command

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        name = args[0]
        if name not in COMMANDS and not name.startswith("-"):
            near = difflib.get_close_matches(name, COMMANDS, n=1)
            raise UsageError(
                f"there is no command '{name}'",
                hint=f"did you mean 'edgebm {near[0]}'?" if near else "see 'edgebm --help'",
            )
        return super().resolve_command(ctx, args)

    def invoke(self, ctx: click.Context) -> Any:
        try:
            return super().invoke(ctx)
        except BrokenPipeError:
            # Here, as click would make exit code 1 of it.
            ctx.exit(_reader_gone())

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        for title, table in (("Host commands", HOST), ("Device commands", DEVICE)):
            with formatter.section(title):
                formatter.write_dl([(name, text) for name, (_, text) in table.items()])


def _print_version(ctx: click.Context, _: click.Parameter, wanted: bool) -> None:
    if wanted:
        from importlib.metadata import version

        click.echo(f"edgebm {version('edgebm')}")
        ctx.exit()


@click.group(
    cls=Commands, epilog=EXAMPLE, context_settings={"help_option_names": ["-h", "--help"]}
)
@click.option(
    "--version",
    is_flag=True,
    is_eager=True,
    expose_value=False,
    callback=_print_version,
    help="Print the version.",
)
@click.option(
    "--traceback", is_flag=True, expose_value=False, help="Show where in Python an error arose."
)
def cli() -> None:
    """Make a trained model small and fast for one device, prove what that cost, and run it there.

    Exit codes: 0 ok, 1 unexpected, 2 wrong input, 3 a limit was missed, 4 bundle damaged or
    unfit, 5 runtime or device missing, 130 interrupted.
    """


def main(argv: Sequence[str] | None = None) -> int:
    """Runs the command line `argv` (without the program's name) and returns its exit code."""
    args = list(sys.argv[1:] if argv is None else argv)
    if not args:
        click.echo(cli.get_help(cli.make_context("edgebm", [], resilient_parsing=True)), err=True)
        return 2
    options = args[: args.index("--")] if "--" in args else args
    with_traceback = "--traceback" in options
    # Known in every place, as it is after a failure that people type it, at the end.
    args = [arg for i, arg in enumerate(args) if arg != "--traceback" or i >= len(options)]
    if argv is None:
        signal.signal(signal.SIGTERM, _terminate)
    try:
        code = cli.main(args, prog_name="edgebm", standalone_mode=False)
        sys.stdout.flush()
    except (KeyboardInterrupt, click.Abort):
        click.echo("interrupted", err=True)
        return 130
    except BrokenPipeError:
        return _reader_gone()
    except Exception as error:  # noqa: BLE001 - the outermost frame: everything is reported
        if with_traceback:
            tracebacks.print_exc()
        return _fail(error, as_json="--json" in options)
    return code if isinstance(code, int) else 0


def _terminate(number: int, frame: FrameType | None) -> None:
    # As an exception it lets `finally` remove what is half written.
    raise SystemExit(128 + number)


def _reader_gone() -> int:
    """`edgebm ... | head` is no failure; nor must the interpreter complain at its end."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    return 0


def _fail(error: Exception, *, as_json: bool) -> int:
    known = _known(error)
    click.echo(f"error: {known}", err=True)
    if known.hint:
        click.echo(f"hint:  {known.hint}", err=True)
    if as_json:
        emit_json({"error": _as_dict(known)})
    return known.exit_code


def _as_dict(error: EdgebmError) -> dict[str, Any]:
    details = dict(error.details)
    faults = getattr(error, "faults", None)
    if faults:
        details["faults"] = faults
    return {
        "code": error.code,
        "message": str(error),
        "hint": error.hint,
        "details": details,
    }


def _known(error: Exception) -> EdgebmError:
    """`error` in edgebm's own words."""
    if isinstance(error, EdgebmError):
        return error
    if isinstance(error, click.ClickException):
        context = getattr(error, "ctx", None)
        path = context.command_path if context else "edgebm"
        return UsageError(error.format_message(), hint=f"see '{path} --help'")
    if isinstance(error, ModuleNotFoundError):
        root = (error.name or "").split(".")[0]
        if root in _EXTRAS:
            return BackendUnavailable(
                f"this command needs the package '{root}', which is not installed",
                hint=f'pip install "edgebm[{_EXTRAS[root]}]"',
            )
    if isinstance(error, OSError) and error.strerror:
        where = f"{error.filename}: " if error.filename else ""
        return UsageError(
            f"{where}{error.strerror}", hint="check the path, its permissions and the free space"
        )
    if isinstance(error, MemoryError):
        return ResourceError(
            "out of memory", hint="close other programs, or give fewer or smaller samples"
        )
    unexpected = EdgebmError(
        f"unexpected {type(error).__name__}: {error}", hint="run again with --traceback"
    )
    unexpected.code = "unexpected"
    return unexpected
