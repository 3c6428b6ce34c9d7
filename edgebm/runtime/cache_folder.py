"""A folder that is this user's alone, for entries that appear whole or not at all.

Everything goes through the folder's descriptor, so what was checked is what is used, whatever
happens to the path meanwhile. Locks are `flock`: the system lets go of them when their owner dies.
"""

from __future__ import annotations

import fcntl
import os
import secrets
import stat
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from edgebm.errors import EngineStale, UsageError
from edgebm.runtime.locks import locked

SUFFIX = ".edgebm.compiled"
_LOCK, _TEMPORARY = "lock-", ".edgebm-tmp-"
# What a cache leaves free: a robot with a full disk is worse off than one that starts slowly.
_SPARE_BYTES = 64 << 20
_OPEN = os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK


@dataclass(frozen=True, slots=True)
class Stored:
    """An entry in the folder; `used_s` is when it was last used, by the system's clock."""

    name: str
    size: int
    used_s: float


class Folder:
    """An open cache folder."""

    def __init__(self, path: Path, handle: int) -> None:
        self.path = path
        self._handle = handle

    def open(self, name: str) -> int:
        """A descriptor for reading an entry.

        Raises:
            FileNotFoundError: there is none.
            EngineStale: it is no regular file of this user.
            OSError: the system's own.
        """
        file = os.open(name, os.O_RDONLY | _OPEN, dir_fd=self._handle)
        status = os.fstat(file)
        if not stat.S_ISREG(status.st_mode) or status.st_uid != os.geteuid():
            os.close(file)
            raise EngineStale("it is no regular file of this user")
        return file

    def touch(self, name: str) -> None:
        """Note that an entry was used, where the file system lets us."""
        with suppress(OSError):
            os.utime(name, dir_fd=self._handle)

    def remove(self, name: str) -> None:
        """Delete an entry, if it is there.

        Raises:
            OSError: the system's own.
        """
        with suppress(FileNotFoundError):
            os.unlink(name, dir_fd=self._handle)

    def entries(self) -> list[Stored]:
        """All entries, the one that was used last first."""
        found = []
        for name in self._names(SUFFIX):
            with suppress(FileNotFoundError):
                status = os.stat(name, dir_fd=self._handle, follow_symlinks=False)
                found.append(Stored(name, status.st_size, status.st_mtime))
        return sorted(found, key=lambda entry: entry.used_s, reverse=True)

    @contextmanager
    def temporary(self) -> Iterator[tuple[int, str]]:
        """A new file to read and write, and its name; gone at the end unless it was published.

        Raises:
            OSError: the system's own.
        """
        flags = os.O_RDWR | os.O_CREAT | os.O_EXCL | _OPEN
        while True:
            name = f"{_TEMPORARY}{secrets.token_hex(8)}"
            file = os.open(name, flags, 0o600, dir_fd=self._handle)
            try:
                # Whoever can lock a temporary file knows that its owner is gone.
                fcntl.flock(file, fcntl.LOCK_EX)
                if os.fstat(file).st_nlink:  # not swept before it was locked
                    yield file, name
                    return
            finally:
                os.close(file)
                self.remove(name)

    def publish(self, temporary: str, name: str) -> None:
        """Give a temporary file, which is on the disk already, the name of an entry.

        Raises:
            OSError: the system's own.
        """
        os.rename(temporary, name, src_dir_fd=self._handle, dst_dir_fd=self._handle)
        os.fsync(self._handle)

    def make_room(self, needed_bytes: int, limit_bytes: int) -> str:
        """Delete what was not used for the longest time; why there is no room, or ""."""
        if needed_bytes > limit_bytes:
            return f"it has {needed_bytes} bytes, the cache may have {limit_bytes}"
        entries = self.entries()
        while entries and sum(e.size for e in entries) + needed_bytes > limit_bytes:
            self.remove(entries.pop().name)
        space = os.fstatvfs(self._handle)
        free = space.f_bavail * space.f_frsize
        if free < needed_bytes + _SPARE_BYTES:
            return f"the disk has {free} bytes free, {needed_bytes + _SPARE_BYTES} are needed"
        return ""

    def sweep(self) -> None:
        """Delete temporary files whose owners are gone."""
        for name in self._names():
            if not name.startswith(_TEMPORARY):
                continue
            with suppress(FileNotFoundError, BlockingIOError, EngineStale):
                file = self.open(name)
                try:
                    fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                    self.remove(name)
                finally:
                    os.close(file)

    @contextmanager
    def lock(self, name: str, wait_s: float) -> Iterator[bool]:
        """Hold the lock `name` inside the block; False where another held it for `wait_s`.

        Raises:
            OSError: the system's own.
        """
        flags = os.O_RDWR | os.O_CREAT | _OPEN
        file = os.open(f"{_LOCK}{name}", flags, 0o600, dir_fd=self._handle)
        try:
            yield locked(file, wait_s)
        finally:
            os.close(file)

    def close(self) -> None:
        os.close(self._handle)

    def _names(self, suffix: str = "") -> list[str]:
        found = os.listdir(self._handle)  # noqa: PTH208 - pathlib knows no descriptors
        return [name for name in found if name.endswith(suffix)]


def open_folder(path: Path, *, create: bool) -> Folder:
    """Open the cache folder `path`.

    Raises:
        UsageError: others could write into it; says what to do.
        OSError, ValueError: the system's own.
    """
    if create:
        path.mkdir(mode=0o700, parents=True, exist_ok=True)
    handle = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        _check_owner(path, os.fstat(handle))
    except UsageError:
        os.close(handle)
        raise
    return Folder(path, handle)


def _check_owner(path: Path, status: os.stat_result) -> None:
    if status.st_uid != os.geteuid():
        raise UsageError(
            f"the cache folder {path} belongs to user {status.st_uid}, not to {os.geteuid()}",
            hint="use a folder of the user that runs the program",
        )
    if status.st_mode & 0o022:
        raise UsageError(
            f"others can write into the cache folder {path}", hint=f"chmod 700 '{path}'"
        )
