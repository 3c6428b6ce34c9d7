"""Where the passphrase of a key comes from: never the command line, which others can see."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import click

from edgebm.errors import UsageError

F = TypeVar("F", bound=Callable[..., Any])
VARIABLE = "EDGEBM_KEY_PASSPHRASE"
_MAX_BYTES = 4096
_HINT = f"give --passphrase-file FILE, or set {VARIABLE}"


def passphrase_option(command: F) -> F:
    """Adds `--passphrase-file`."""
    return click.option(
        "--passphrase-file",
        type=click.Path(path_type=Path),
        metavar="FILE",
        help=f"File whose first line is the passphrase of the key. Default: {VARIABLE}, or it is "
        "asked for.",
    )(command)


def given_passphrase(file: Path | None) -> str:
    """What the file or the environment says; "" if neither does.

    Raises:
        UsageError: the file cannot be read, or begins with an empty line.
    """
    if file is None:
        return os.environ.get(VARIABLE, "")
    try:
        with file.open("rb") as stream:
            line = stream.readline(_MAX_BYTES).decode("utf-8")
    except (OSError, ValueError) as cause:
        raise UsageError(f"--passphrase-file {file} cannot be read: {cause}") from cause
    if not (passphrase := line.rstrip("\r\n")):
        raise UsageError(f"--passphrase-file {file} begins with an empty line")
    return passphrase


def known_passphrase(file: Path | None) -> str:
    """The passphrase of a key that is there.

    Raises:
        UsageError: nobody gave it, and nobody can be asked.
    """
    return given_passphrase(file) or _ask("Passphrase of the key", confirm=False)


def new_passphrase(file: Path | None, *, encrypt: bool) -> str:
    """The passphrase for a new key; "" if it is to have none.

    Raises:
        UsageError: it is to have one, nobody gave it, and nobody can be asked.
    """
    given = given_passphrase(file)
    return given or (_ask("Passphrase for the new key", confirm=True) if encrypt else "")


def _ask(text: str, *, confirm: bool) -> str:
    if not sys.stdin.isatty():
        raise UsageError("the key needs a passphrase, and nobody can be asked", hint=_HINT)
    return str(click.prompt(text, hide_input=True, confirmation_prompt=confirm, err=True))
