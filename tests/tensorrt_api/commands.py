"""Programs that the check starts."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path


class CheckFailed(Exception):
    """The check cannot be made; the text says why and what to do."""


def run(
    command: Sequence[str],
    what: str,
    *,
    accepted: Sequence[int] = (0,),
    folder: Path | None = None,
    variables: Mapping[str, str] | None = None,
) -> str:
    """The command's stdout.

    Args:
        command: the program and its arguments.
        what: what it does, for the message.
        accepted: the statuses that are no failure.
        folder: where it runs; this process's own by default.
        variables: added to the environment.

    Raises:
        CheckFailed: it cannot be started, or ends with another status.
    """
    environment = {**os.environ, **(variables or {})}
    try:
        done = subprocess.run(
            command, capture_output=True, text=True, check=False, cwd=folder, env=environment
        )
    except OSError as error:
        raise CheckFailed(f"{what}: {command[0]} cannot be started: {error}") from error
    if done.returncode not in accepted:
        said = (done.stderr or done.stdout).strip()[-2000:]
        raise CheckFailed(f"{what} failed with status {done.returncode}:\n{said}")
    return done.stdout
