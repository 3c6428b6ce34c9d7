"""What was measured, kept in a file, so that no other run has to do it again.

One JSON object a line, appended in one system call: a killed process loses the entry that it was
making and no other. An entry is found by the hash of everything that decides its value, so one
that no longer fits is not found. Standard library only.
"""

from __future__ import annotations

import hashlib
import os
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from edgebm.errors import UsageError
from edgebm.runtime.entries import HEADER, Entry, entry_key, header_fault, read_entry

SECONDS = "seconds"
_SYNC_S = 5.0  # a crash of the whole machine loses what was measured since
_BUNDLE = "bundle"
_BLOCK_BYTES = 1 << 20
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

    @property
    def is_set_aside(self) -> bool:
        """Whether the file cannot be used; `notes` says why."""
        return self._set_aside

    def has(self, kind: str, parts: Mapping[str, Any]) -> bool:
        """Whether `find` would find something; it does not count as reused."""
        return entry_key(kind, parts) in self._entries

    def find(self, kind: str, parts: Mapping[str, Any]) -> Any | None:
        """The value kept for `kind` and exactly these parts, or None.

        Args:
            kind: what was found: "turn", "trial", "score", ...
            parts: JSON types; everything that decides the value.
        """
        key = entry_key(kind, parts)
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
        try:
            line = Entry(kind, parts, value, about).line()
        except ValueError:
            return
        self._entries[entry_key(kind, parts)] = value
        self.made += kind != SECONDS
        self._append(line)

    def keep_bundle(self, bundle: Path) -> None:
        """Remember that `bundle` is what an unfinished run wrote: going on may replace it."""
        self.keep(_BUNDLE, {"sha256": _sha256(bundle)}, bundle.name, "written unfinished")

    def wrote(self, bundle: Path) -> bool:
        """Whether `bundle` is a file of an unfinished run that this journal belongs to."""
        return (
            bundle.is_file() and entry_key(_BUNDLE, {"sha256": _sha256(bundle)}) in self._entries
        )

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
        fault = "" if lines or HEADER.startswith(raw) else _FOREIGN
        try:
            fault = fault or (header_fault(lines[0], len(lines) - 1) if lines else "")
            if not fault:
                self._entries = dict(map(read_entry, lines[1:]))
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
            _write(file, HEADER)
        self._file = file
        return file

    def _close(self) -> None:
        if self._file is not None:
            os.close(self._file)
        self._file = None

    def __del__(self) -> None:
        self._close()


def _aside(path: Path) -> Path:
    return path.with_name(f"{path.name}.damaged")


def _write(file: int, data: bytes) -> None:
    if os.write(file, data) < len(data):
        raise OSError(28, "no space left on the device")


def _sha256(path: Path) -> str:
    total = hashlib.sha256()
    with path.open("rb") as file:
        while block := file.read(_BLOCK_BYTES):
            total.update(block)
    return total.hexdigest()
