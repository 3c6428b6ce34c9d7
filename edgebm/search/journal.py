"""What was measured, kept in a file while a run goes on, so that no other run has to do it again.

One JSON object a line, appended in one system call: a killed process loses the entry that it was
making and no other. An entry is found by the hash of everything that decides its value, so one
that no longer fits is not found. Standard library only.
"""

from __future__ import annotations

import hashlib
import json
import os
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from edgebm.errors import UsageError

VERSION = 1
SECONDS = "seconds"
_NAME = "edgebm_measurements"
_HEADER = json.dumps({_NAME: VERSION}).encode() + b"\n"
_SYNC_S = 5.0  # a crash of the whole machine loses what was measured since
GO_ON = "the same command goes on from there"
_BUNDLE = "bundle"
_LONGEST = 240
_FOREIGN = "it holds something else"


class Journal:
    """Findings by what they are about. Without a path they are not kept.

    `reused` and `made` count measurements that an earlier run left and that were added; how long
    a step took (`SECONDS`) is none. `notes` are sentences for the user: what is wrong with the
    file.
    """

    def __init__(self, path: Path | None = None) -> None:
        """Read `path` if it exists; it is changed by the first new entry, not before.

        Raises:
            UsageError: it cannot be read.
        """
        self.path = path
        self.notes: list[str] = []
        self.reused = self.made = 0
        self._entries: dict[str, Any] = {}
        self._earlier: frozenset[str] = frozenset()
        self._whole_bytes = 0
        self._set_aside = False
        self._file: int | None = None
        self._synced = time.monotonic()
        if path is not None and path.exists():
            self._read(path)
            self._earlier = frozenset(self._entries)

    @property
    def count(self) -> int:
        """Entries that there are."""
        return len(self._entries)

    def find(self, kind: str, parts: Mapping[str, Any]) -> Any | None:
        """The value kept for `kind` and exactly these parts, or None.

        Args:
            kind: what was found: "turn", "trial", "score", ...
            parts: JSON types; everything that decides the value.
        """
        key = _key(kind, parts)
        self.reused += key in self._earlier and kind != SECONDS
        return self._entries.get(key)

    def keep(self, kind: str, parts: Mapping[str, Any], value: Any, about: str = "") -> None:
        """Add an entry. One that holds NaN or infinity, which JSON has not, is left out.

        Args:
            kind: as for `find`.
            parts: as for `find`.
            value: JSON types, not None; `find` returns it.
            about: what it is, for people who read the file.
        """
        key = _key(kind, parts)
        try:
            line = _line({"kind": kind, "about": about, "value": value, "key": key})
        except ValueError:
            return
        self._entries[key] = value
        self.made += kind != SECONDS
        self._append(line)

    def keep_bundle(self, bundle: Path) -> None:
        """Remember that `bundle` is what an unfinished run wrote: going on may replace it."""
        self.keep(_BUNDLE, {"sha256": _sha256(bundle)}, bundle.name, "written unfinished")

    def wrote(self, bundle: Path) -> bool:
        """Whether `bundle` is a file of an unfinished run that this journal belongs to."""
        return bundle.is_file() and _key(_BUNDLE, {"sha256": _sha256(bundle)}) in self._entries

    def remove(self) -> None:
        """Delete the file: the run is complete."""
        self._close()
        if self.path is not None and not self._set_aside:
            self.path.unlink(missing_ok=True)

    def _read(self, path: Path) -> None:
        try:
            raw = path.read_bytes()
        except OSError as cause:
            raise UsageError(
                f"the measurements in {path} cannot be read: {cause.strerror}",
                hint="give another file, or mend its permissions",
            ) from cause
        # What follows the last line break is an entry during which the process was killed.
        lines = raw[: raw.rfind(b"\n") + 1].splitlines(keepends=True)
        fault = "" if lines or _HEADER.startswith(raw) else _FOREIGN
        try:
            fault = fault or (_header_fault(lines[0]) if lines else "")
            if not fault:
                self._entries = dict(map(_entry, lines[1:]))
        except (ValueError, KeyError, TypeError, AttributeError):
            fault = "it is damaged"
        self._whole_bytes = sum(map(len, lines))
        if fault:
            self._entries, self._set_aside = {}, True
            self.notes.append(
                f"the measurements in {path} are not used: {fault}; everything is measured anew, "
                f"and the old file becomes {_aside(path).name}"
            )

    def _append(self, line: bytes) -> None:
        if self.path is None:
            return
        try:
            file = self._open(self.path) if self._file is None else self._file
            _write(file, line)
            if time.monotonic() - self._synced > _SYNC_S:
                os.fsync(file)
                self._synced = time.monotonic()
        except OSError as cause:
            self._close()
            self.notes.append(
                f"{self.path} cannot be written ({cause.strerror}): a run that is cut off cannot "
                "go on from what was measured since"
            )
            self.path = None

    def _open(self, path: Path) -> int:
        if self._set_aside:
            path.rename(_aside(path))
            self._set_aside, self._whole_bytes = False, 0
        file = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o666)
        if self._whole_bytes < os.fstat(file).st_size:
            os.ftruncate(file, self._whole_bytes)
        if not self._whole_bytes:
            _write(file, _HEADER)
        self._file = file
        return file

    def _close(self) -> None:
        if self._file is not None:
            os.close(self._file)
        self._file = None

    def __del__(self) -> None:
        self._close()


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
            start = file.read(len(_NAME) + 4)
        if start and not start.startswith(_HEADER[: len(start)][: len(_NAME) + 3]):
            return [f"{path} holds no measurements of edgebm; give another name"]
    return []


def _same(path: Path, other: Path) -> bool:
    return path.is_file() and other.exists() and path.samefile(other)


def _key(kind: str, parts: Mapping[str, Any]) -> str:
    return hashlib.sha256(_json([kind, parts])).hexdigest()


def _json(value: Any) -> bytes:
    return json.dumps(value, sort_keys=True, allow_nan=False).encode()


def _line(entry: Mapping[str, Any]) -> bytes:
    """The entry with a checksum of itself: a changed figure is damage, not a measurement."""
    told = {**entry, "sha256": hashlib.sha256(_json(entry)).hexdigest()}
    return json.dumps(told, allow_nan=False).encode() + b"\n"


def _entry(line: bytes) -> tuple[str, Any]:
    entry = json.loads(line)
    told = entry.pop("sha256")
    if told != hashlib.sha256(_json(entry)).hexdigest():
        raise ValueError("the checksum is another one")
    return entry["key"], entry["value"]


def _header_fault(line: bytes) -> str:
    version = json.loads(line)[_NAME]
    return "" if version == VERSION else f"it has version {version}, this edgebm reads {VERSION}"


def _aside(path: Path) -> Path:
    return path.with_name(f"{path.name}.damaged")


def _write(file: int, data: bytes) -> None:
    if os.write(file, data) < len(data):
        raise OSError(28, "no space left on the device")


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
