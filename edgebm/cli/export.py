"""`edgebm export`: the plain files of a bundle, for any program that reads ONNX or IR."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Sequence
from pathlib import Path

import click

from edgebm.cli.output import emit_json, json_option, output_faults, refuse, write_file
from edgebm.errors import UsageError
from edgebm.runtime.bundle import Bundle, read_bundle
from edgebm.spec import Variant

EXAMPLE = """\
\b
Examples:
  edgebm export model.edgebm -o files
  edgebm export model.edgebm -o files --variant raspberry-pi-5
"""


@click.command(epilog=EXAMPLE)
@click.argument("bundle", type=click.Path(path_type=Path))
@click.option(
    "-o",
    "--out",
    type=click.Path(path_type=Path),
    required=True,
    metavar="DIR",
    help="Folder to write into; made if it is not there.",
)
@click.option(
    "--variant",
    metavar="TARGET|RUNTIME|TARGET/RUNTIME",
    help="Only these. Default: every variant, each in its own folder if there are several.",
)
@click.option("--force", is_flag=True, help="Replace files that are there.")
@json_option
def command(bundle: Path, out: Path, variant: str | None, force: bool, as_json: bool) -> None:
    """Take the plain ONNX file or OpenVINO IR out of BUNDLE: no lock-in."""
    opened = read_bundle(bundle)
    chosen = select(opened, variant)
    contents = {
        out / _folder(each, chosen) / Path(short).name: content
        for each in chosen
        for short, content in opened.files(each).items()
    }
    _write(contents, out, force=force)
    if as_json:
        emit_json({"files": list(contents)})
    else:
        click.echo("\n".join(map(str, contents)))


def select(bundle: Bundle, name: str | None) -> Sequence[Variant]:
    """The variants that `name` (a target, a runtime, or target/runtime) means; all for None.

    Raises:
        UsageError: there is none; lists those that are there.
    """
    variants = bundle.manifest.variants
    if name is None:
        return variants
    chosen = [v for v in variants if name in {v.target, v.runtime, f"{v.target}/{v.runtime}"}]
    if not chosen:
        known = ", ".join(f"{v.target}/{v.runtime}" for v in variants)
        raise UsageError(f"{bundle.path} has no variant '{name}'", hint=f"it has {known}")
    return chosen


def _folder(variant: Variant, chosen: Sequence[Variant]) -> Path:
    # Nothing in a manifest may lead out of the folder that the user named.
    parts = (Path(variant.target).name, Path(variant.runtime).name)
    return Path(*parts) if len(chosen) > 1 else Path()


def _write(contents: dict[Path, bytes], out: Path, *, force: bool) -> None:
    if out.exists() and not out.is_dir():
        raise UsageError(f"--out {out} is a file", hint="give a folder")
    if not out.exists():
        _write_new(contents, out)
        return
    faults = []
    for path in contents:
        if path.exists() or path.parent.is_dir():
            faults += output_faults(path, option="--out", force=force)
    refuse(faults)
    for path, content in contents.items():
        path.parent.mkdir(parents=True, exist_ok=True)
        write_file(path, content, force=force)


def _write_new(contents: dict[Path, bytes], out: Path) -> None:
    """A new folder appears whole: it is filled under another name first."""
    faults = output_faults(out, option="--out", force=False)
    refuse(faults)
    hidden = Path(tempfile.mkdtemp(dir=out.parent, prefix=f".{out.name}."))
    try:
        for path, content in contents.items():
            copy = hidden / path.relative_to(out)
            copy.parent.mkdir(parents=True, exist_ok=True)
            copy.write_bytes(content)
        hidden.chmod(0o755)
        hidden.rename(out)
    except BaseException:
        shutil.rmtree(hidden, ignore_errors=True)
        raise
