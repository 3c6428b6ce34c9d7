"""Files that appear whole or not at all, and texts that may be missing."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import IO

from edgebm.errors import UsageError


def read_or_empty(path: Path) -> str:
    """The text of a file of the system, "" where it is missing or cannot be read."""
    try:
        return path.read_text(encoding="utf-8", errors="replace")
    except OSError:
        return ""


def write_atomically(path: Path, data: bytes) -> None:
    """Replace `path` by a file that holds `data`; on any failure it is as it was.

    Raises:
        UsageError: it cannot be written; the system's reason is in the message.
    """
    replace_atomically(path, lambda file: file.write(data))


def replace_atomically(path: Path, write: Callable[[IO[bytes]], object]) -> None:
    """Replace `path` by a file with what `write` puts into it; on any failure it is as it was.

    Raises:
        UsageError: it cannot be written; the system's reason is in the message.
    """

    def replace(temporary: Path) -> None:
        temporary.chmod(0o666 & ~_umask())
        temporary.replace(path)

    _appear(path, write, replace)


def create_atomically(path: Path, data: bytes, *, private: bool = False) -> None:
    """Make a file with `data` where there is none; `private` for its owner's eyes only.

    Raises:
        UsageError: there is one, or it cannot be written.
    """

    def link(temporary: Path) -> None:
        temporary.chmod(0o600 if private else 0o666 & ~_umask())
        # Unlike a rename it fails where there is a file.
        path.hardlink_to(temporary)
        temporary.unlink()

    _appear(path, lambda file: file.write(data), link)


def _appear(
    path: Path, write: Callable[[IO[bytes]], object], name: Callable[[Path], None]
) -> None:
    """Write a temporary file beside `path`, which `name` then gives its name."""
    import tempfile  # a device that only reads needs none of it

    try:
        # The name may be as long as the file system allows; the temporary one must not be longer.
        handle, temporary_name = tempfile.mkstemp(prefix=f".{path.name[:40]}.", dir=path.parent)
    except OSError as cause:
        raise _refused(path, cause) from cause
    temporary = Path(temporary_name)
    try:
        with os.fdopen(handle, "wb") as file:
            write(file)
            file.flush()
            os.fsync(file.fileno())
        name(temporary)
    except BaseException as cause:
        temporary.unlink(missing_ok=True)
        if isinstance(cause, OSError):
            raise _refused(path, cause) from cause
        raise


def _refused(path: Path, cause: OSError) -> UsageError:
    return UsageError(
        f"{path} cannot be written: {cause}", hint="choose another path, or free some space"
    )


def _umask() -> int:
    # The only way to read it is to set it.
    current = os.umask(0)
    os.umask(current)
    return current
