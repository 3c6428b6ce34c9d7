"""The cache folder with the key of this device: entries are written, proved and read here."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from edgebm.errors import EngineStale, UsageError
from edgebm.runtime.cache_entry import Head, read_body, read_head, write_entry
from edgebm.runtime.cache_folder import Folder, open_folder
from edgebm.runtime.cache_place import CacheFolder
from edgebm.runtime.device_key import device_key


@dataclass(frozen=True, slots=True)
class Draft:
    """An entry on the disk that has no name yet, so nobody sees it."""

    file: int
    name: str
    key: bytes


@dataclass(frozen=True, slots=True)
class Store:
    """An open cache folder, the key of this device, and the rules of the cache."""

    folder: Folder
    secret: bytes
    rules: CacheFolder

    def read(self, name: str, key: bytes) -> tuple[Head, tuple[bytes, ...]]:
        """An entry and its blobs, all of whose bytes are what this device wrote.

        Raises:
            FileNotFoundError: there is none.
            EngineStale: it is something else; says what.
            OSError, MemoryError: the system's own.
        """
        with self._opened(name) as file:
            return self._read(file, key)

    def head(self, name: str) -> Head:
        """The start of an entry alone, and no proof of the rest.

        Raises:
            FileNotFoundError, EngineStale, OSError: as `read`.
        """
        with self._opened(name) as file:
            return read_head(file, self.secret)

    @contextmanager
    def draft(
        self, key: bytes, header: Mapping[str, Any], blobs: Sequence[bytes]
    ) -> Iterator[Draft]:
        """Write an entry to the disk; it is gone at the end unless it was published.

        Raises:
            OSError: the system's own.
        """
        with self.folder.temporary() as (file, name):
            write_entry(file, self.secret, key, header, blobs)
            os.fsync(file)
            yield Draft(file, name, key)

    def read_draft(self, draft: Draft) -> tuple[Head, tuple[bytes, ...]]:
        """Read a draft back from the disk, not from memory, as a start after power-on does.

        Raises:
            EngineStale: the disk gives back other bytes than were written.
            OSError, MemoryError: the system's own.
        """
        os.posix_fadvise(draft.file, 0, 0, os.POSIX_FADV_DONTNEED)
        os.lseek(draft.file, 0, os.SEEK_SET)
        return self._read(draft.file, draft.key)

    def publish(self, draft: Draft, name: str) -> None:
        """Give a draft its name, in place of an older entry.

        Raises:
            OSError: the system's own.
        """
        self.folder.publish(draft.name, name)

    def _read(self, file: int, key: bytes) -> tuple[Head, tuple[bytes, ...]]:
        head = read_head(file, self.secret)
        if head.key != key:
            raise EngineStale("it is the entry of another model")
        return head, read_body(file, self.secret, head)

    @contextmanager
    def _opened(self, name: str) -> Iterator[int]:
        file = self.folder.open(name)
        try:
            yield file
        finally:
            os.close(file)


@contextmanager
def open_store(rules: CacheFolder) -> Iterator[Store]:
    """Open the folder of a cache for the length of the block.

    Raises:
        UsageError: it cannot be used here; says what to do.
    """
    folder = None
    try:
        try:
            folder = open_folder(rules.path, create=rules.create)
            store = Store(folder, device_key(folder, rules.wait_s), rules)
        except UsageError:
            raise
        except (OSError, ValueError, EngineStale) as cause:
            raise UsageError(
                f"{rules.path} cannot be the cache folder: {reason(cause)}",
                hint="choose another one",
            ) from cause
        yield store
    finally:
        if folder is not None:
            folder.close()


def reason(cause: BaseException) -> str:
    """An exception in a few words; of the system's own only what is wrong."""
    return str(getattr(cause, "strerror", None) or cause or type(cause).__name__)
