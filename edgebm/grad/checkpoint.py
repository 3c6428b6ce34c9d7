"""The state of a training in one file: arrays as .npy members of a zip, the rest as JSON."""

from __future__ import annotations

import json
import time
import zipfile
from dataclasses import dataclass, field
from io import BytesIO
from pathlib import Path
from typing import IO, Any

import numpy as np
from numpy.typing import NDArray

from edgebm.errors import UsageError
from edgebm.runtime.files import replace_atomically

_FORMAT = 2
_META = "meta"
_ANEW = "begin anew without --resume"


@dataclass(frozen=True, slots=True)
class State:
    """Arrays by name, and what is no array, of JSON types."""

    arrays: dict[str, NDArray[Any]]
    meta: dict[str, Any]

    def under(self, prefix: str) -> dict[str, NDArray[Any]]:
        """The arrays whose names begin with `prefix/`, without it."""
        start = f"{prefix}/"
        return {k[len(start) :]: a for k, a in self.arrays.items() if k.startswith(start)}


@dataclass(slots=True)
class Checkpoint:
    """A file that is written every `every_s` seconds, in one step: the old one or the new one.

    `identity` says of which training it is: another one does not go on from it. With `resume`
    the training begins with what is in the file, if it is there.
    """

    path: Path
    identity: dict[str, Any]
    every_s: float = 60.0
    resume: bool = False
    _written: float = field(default_factory=time.monotonic)

    def is_due(self) -> bool:
        return time.monotonic() - self._written >= self.every_s

    def content(self) -> bytes:
        """The file as it is; empty where the training begins anew."""
        if not self.resume or not self.path.exists():
            return b""
        try:
            content = self.path.read_bytes()
        except OSError as cause:
            raise UsageError(
                f"the checkpoint {self.path} cannot be read: {cause}",
                hint=_ANEW,
            ) from cause
        if not content:
            raise UsageError(f"{self.path} is empty: no checkpoint", hint=_ANEW)
        return content

    def load(self, content: bytes) -> State | None:
        """What to go on from, of the `content` of the file; None where that is empty.

        Raises:
            UsageError: it is damaged, or of another training; the message says what differs.
        """
        if not content:
            return None
        state = _read(self.path, content)
        held = state.meta["identity"]
        # As it would be read back: tuples are lists in JSON.
        mine = json.loads(json.dumps(self.identity))
        differing = sorted(k for k in {*held, *mine} if held.get(k) != mine.get(k))
        if differing:
            raise UsageError(
                f"{self.path} is of another training; what differs: {', '.join(differing)}",
                hint="resume with the arguments it began with, or begin anew without --resume",
            )
        return state

    def save(self, state: State) -> None:
        """Write `state`; on any failure the old file is as it was.

        Raises:
            UsageError: the file cannot be written; the system's reason is in the message.
        """
        meta = {"format": _FORMAT, "identity": self.identity, **state.meta}
        text = np.frombuffer(json.dumps(meta).encode(), np.uint8)

        def write(file: IO[bytes]) -> None:
            np.savez(file, allow_pickle=False, **{_META: text, **state.arrays})

        had = self.path.exists()
        try:
            replace_atomically(self.path, write)
        except UsageError as cause:
            kept = "the one written before is intact: " if had else ""
            raise UsageError(
                f"the checkpoint {cause}",
                hint=f"{kept}free some space, and run the same again with --resume",
            ) from cause
        self._written = time.monotonic()

    def remove(self) -> None:
        """The training is complete, and its result written."""
        self.path.unlink(missing_ok=True)


def _read(path: Path, content: bytes) -> State:
    try:
        with np.load(BytesIO(content), allow_pickle=False) as held:
            arrays = {label: held[label] for label in held.files}
        meta = json.loads(arrays.pop(_META).tobytes().decode())
    except (ValueError, KeyError, EOFError, zipfile.BadZipFile) as cause:
        raise UsageError(
            f"{path} is no checkpoint, or a damaged one: {cause}",
            hint=_ANEW,
        ) from cause
    if not isinstance(meta, dict) or meta.get("format") != _FORMAT:
        raise UsageError(
            f"{path} is a checkpoint of another version of edgebm",
            hint=_ANEW,
        )
    return State(arrays, meta)
