"""Which file holds the measurements of a run, and whether it can."""

from __future__ import annotations

import os
from pathlib import Path

from edgebm.errors import UsageError
from edgebm.runtime.entries import START_BYTES, is_start
from edgebm.runtime.journal import Journal

GO_ON = "the same command goes on from there"
_LONGEST = 240


def resume_path(bundle: Path) -> Path:
    """Where a run that writes `bundle` keeps its measurements until it is complete."""
    # The name of the bundle may be as long as the file system allows.
    name = bundle.name.encode()[:_LONGEST].decode(errors="ignore")
    return bundle.with_name(f"{name}.resume")


def open_journal(
    bundle: str | os.PathLike[str] | None,
    measurements: str | os.PathLike[str] | None,
    inputs: tuple[object, ...],
) -> Journal:
    """The journal of a run that writes `bundle` and reads `inputs`, in `measurements` if named.

    Raises:
        UsageError: that file cannot hold measurements.
    """
    if measurements is None:
        return Journal(None if bundle is None else resume_path(Path(bundle)))
    if faults := measurements_faults(Path(measurements), (*inputs, bundle)):
        raise UsageError("; ".join(f"measurements: {fault}" for fault in faults))
    return Journal(Path(measurements))


def measurements_faults(path: Path, inputs: tuple[object, ...] = ()) -> list[str]:
    """Why `path` cannot hold measurements; one sentence each, empty if it can.

    A file of something else is refused here, as it would be moved out of the way.
    """
    if any(isinstance(e, str | Path) and _same(path, Path(e)) for e in inputs):
        return [f"{path} is an input of this command; give another name"]
    if path.is_dir():
        return [f"{path} is a folder; give the name of a file in it"]
    if not path.parent.is_dir():
        return [f"the folder {path.parent} does not exist"]
    if path.is_file():
        with path.open("rb") as file:
            start = file.read(START_BYTES)
        if start and not is_start(start):
            return [f"{path} holds no measurements of edgebm; give another name"]
    return []


def _same(path: Path, other: Path) -> bool:
    return path.is_file() and other.exists() and path.samefile(other)
