"""A file of measurements: one JSON object a line, each with a checksum and a key of its own."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

VERSION = 1
_NAME = "edgebm_measurements"
_COUNT = "entries"  # of a file that was written at once; there are as many or more
HEADER = json.dumps({_NAME: VERSION}).encode() + b"\n"
START_BYTES = len(_NAME) + 4


@dataclass(frozen=True, slots=True)
class Entry:
    """One finding: `value` is kept for `kind` and `parts`, `about` is for people; JSON types."""

    kind: str
    parts: Mapping[str, Any]
    value: Any
    about: str = ""

    def line(self) -> bytes:
        """The entry as it stands in the file.

        Raises:
            ValueError: it holds NaN or infinity, which JSON has not.
        """
        key = entry_key(self.kind, self.parts)
        return _line({"kind": self.kind, "about": self.about, "value": self.value, "key": key})


def is_start(data: bytes) -> bool:
    """Whether `data`, `START_BYTES` of a file or all it has, may begin a file of measurements."""
    return data.startswith(HEADER[: len(data)][: len(_NAME) + 3])


def journal_bytes(entries: Iterable[Entry]) -> bytes:
    """A whole file with these entries, which tells how many there are: a shorter copy is damaged.

    Raises:
        ValueError: one holds NaN or infinity.
    """
    lines = [entry.line() for entry in entries]
    return json.dumps({_NAME: VERSION, _COUNT: len(lines)}).encode() + b"\n" + b"".join(lines)


def entry_key(kind: str, parts: Mapping[str, Any]) -> str:
    """What an entry about exactly these parts is found by."""
    return hashlib.sha256(_json([kind, parts])).hexdigest()


def _json(value: Any) -> bytes:
    return json.dumps(value, sort_keys=True, allow_nan=False).encode()


def _line(entry: Mapping[str, Any]) -> bytes:
    """The entry with a checksum of itself: a changed figure is damage, not a measurement."""
    told = {**entry, "sha256": hashlib.sha256(_json(entry)).hexdigest()}
    return json.dumps(told, allow_nan=False).encode() + b"\n"


def read_entry(line: bytes) -> tuple[str, Any]:
    """The key and the value of a line.

    Raises:
        ValueError, KeyError, TypeError, AttributeError: it is damaged.
    """
    entry = json.loads(line)
    told = entry.pop("sha256")
    if told != hashlib.sha256(_json(entry)).hexdigest():
        raise ValueError("the checksum is another one")
    return entry["key"], entry["value"]


def header_fault(line: bytes, entries: int) -> str:
    """Why a file with this first line and so many entries cannot be used; "" if it can.

    Raises:
        ValueError, KeyError, TypeError, AttributeError: as `read_entry`.
    """
    header = json.loads(line)
    if header[_NAME] != VERSION:
        return f"it has version {header[_NAME]}, this edgebm reads {VERSION}"
    told = header.get(_COUNT, 0)
    return "" if entries >= told else f"it is not whole: {entries} of {told} entries are there"
