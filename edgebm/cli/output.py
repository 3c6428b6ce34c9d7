"""What commands print and write: JSON on stdout, files that appear whole or not at all.

Device commands use this module too: standard library and click only.
"""

from __future__ import annotations

import json
import math
import os
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

import click

from edgebm.errors import UsageError
from edgebm.runtime.files import write_atomically

F = TypeVar("F", bound=Callable[..., Any])


def json_option(command: F) -> F:
    """Adds `--json`; the command gets it as the parameter `as_json`."""
    return click.option("--json", "as_json", is_flag=True, help="Print the result as JSON.")(
        command
    )


def emit_json(value: object) -> None:
    """Prints `value` as one JSON document; NaN and infinity, which JSON has not, as null."""
    click.echo(json.dumps(_plain(value), indent=2))


def _plain(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, (list, tuple, set, frozenset)):
        return [_plain(item) for item in value]
    if hasattr(value, "tolist"):  # a numpy scalar or array
        return _plain(value.tolist())
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value if value is None or isinstance(value, (str, int, float)) else str(value)


def output_faults(
    path: Path, *, option: str, force: bool, inputs: Iterable[object] = ()
) -> list[str]:
    """Why a file cannot be written at `path`; one sentence each, empty if it can.

    `inputs` are files that the command reads; not even `force` replaces one of them.
    """
    try:
        if any(isinstance(each, str | Path) and _same(path, Path(each)) for each in inputs):
            return [f"{option} {path} is an input of this command; give another name"]
        return _place_faults(path, option=option, force=force)
    except OSError as cause:  # a name that is too long, say
        return [f"{option} {path}: {cause.strerror}"]


def _same(path: Path, other: Path) -> bool:
    return path.is_file() and other.exists() and path.samefile(other)


def _place_faults(path: Path, *, option: str, force: bool) -> list[str]:
    if path.is_dir():
        return [f"{option} {path} is a folder; give the name of a file in it"]
    if path.exists() and not force:
        return [f"{option} {path} exists; give --force to replace it"]
    folder = path.parent
    if not folder.is_dir():
        why = "is not a folder" if folder.exists() else "does not exist"
        return [f"{option} {path}: the folder {folder} {why}"]
    if not os.access(folder, os.W_OK | os.X_OK):
        return [f"{option} {path}: the folder {folder} is not writable"]
    return []


def refuse(faults: Sequence[str], hint: str = "choose another place with --out") -> None:
    """Raise `faults`, if there are any, as one UsageError."""
    if faults:
        raise UsageError("; ".join(faults), hint=hint)


def write_file(path: Path, content: bytes, *, force: bool = False, option: str = "--out") -> None:
    """Writes `content` to `path` in one step: a reader sees the old file or the new one.

    Raises:
        UsageError: `path` exists and `force` is not given, or it cannot be written.
    """
    refuse(output_faults(path, option=option, force=force))
    write_atomically(path, content)
