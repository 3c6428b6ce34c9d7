"""The key that this device signs its cache with: random, made here, readable by its owner only."""

from __future__ import annotations

import os
import secrets
from contextlib import suppress

from edgebm.errors import UsageError
from edgebm.runtime.cache_folder import Folder

KEY_FILE, KEY_BYTES = "device.key", 32


def device_key(folder: Folder, wait_s: float) -> bytes:
    """Read the key of this device, or make it.

    Raises:
        UsageError: others can read it, or another process has been making it for `wait_s`.
        EngineStale: it is no regular file of this user.
        OSError: the system's own.
    """
    key = _stored(folder)
    if len(key) == KEY_BYTES:
        return key
    with folder.lock(KEY_FILE, wait_s) as held:
        if not held:
            raise UsageError(f"another process holds the lock on {folder.path / KEY_FILE}")
        key = _stored(folder)
        return key if len(key) == KEY_BYTES else _make(folder)


def _stored(folder: Folder) -> bytes:
    """Empty where there is none; of another length where a power cut spoilt it."""
    with suppress(FileNotFoundError):
        file = folder.open(KEY_FILE)
        try:
            if os.fstat(file).st_mode & 0o077:
                raise UsageError(
                    f"others can read {folder.path / KEY_FILE}",
                    hint="delete the folder: what is in it may not be from this device",
                )
            return os.read(file, KEY_BYTES + 1)
        finally:
            os.close(file)
    return b""


def _make(folder: Folder) -> bytes:
    key = secrets.token_bytes(KEY_BYTES)
    with folder.temporary() as (file, name):
        os.write(file, key)
        os.fsync(file)
        folder.publish(name, KEY_FILE)
    return key
