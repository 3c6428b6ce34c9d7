"""The highest release of each bundle that this device has accepted: a small JSON file.

There is no file before the first bundle; a damaged one is an error, for to begin anew would accept
an old bundle. It changes in one step, under a lock, and no lock is taken where nothing changes.
"""

from __future__ import annotations

import json
import os
from pathlib import Path

from edgebm.errors import BundleFormat, BundleRollback, UsageError
from edgebm.runtime.files import write_atomically
from edgebm.runtime.locks import locked
from edgebm.runtime.strict_json import parse_json

RELEASES_VERSION = 1
_WAIT_S = 10.0
_MAX_BYTES = 1 << 20


def check_release(path: Path, name: str, release: int) -> None:
    """Refuse a release of the bundle `name` that is lower than the one in the file.

    Raises:
        BundleRollback: it is.
        UsageError: the file cannot be read, or is damaged.
    """
    _check(_read(path), path, name, release)


def accept_release(path: Path, name: str, release: int, *, allow_downgrade: bool) -> None:
    """Note `release` as the one accepted of the bundle `name`.

    Raises:
        BundleRollback: another process has accepted a higher one meanwhile.
        UsageError: the file cannot be read or written, is damaged, or is locked for ten seconds.
    """
    if _read(path).get(name) == release:
        return
    # Where the path is a link, as it may be into a partition that outlasts updates, the file
    # behind it is the one to be replaced.
    path = path.resolve()
    lock = path.with_name(f"{path.name}.lock")
    try:
        handle = os.open(lock, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
    except OSError as cause:
        raise UsageError(
            f"the release {release} of {name} cannot be noted in {path}: {cause}",
            hint="keep the file in a folder that the program may write to",
        ) from cause
    try:
        if not locked(handle, _WAIT_S):
            raise UsageError(f"another process has held {lock} for {_WAIT_S:g} s")
        known = _read(path)
        if not allow_downgrade:
            _check(known, path, name, release)
        _write(path, {**known, name: release})
    finally:
        os.close(handle)


def _check(known: dict[str, int], path: Path, name: str, release: int) -> None:
    accepted = known.get(name, 0)
    if release < accepted:
        raise BundleRollback(
            f"the bundle is release {release} of {name!r}, and release {accepted} was accepted "
            f"before, as {path} says",
            hint=f"take release {accepted} or later, or set Trust(allow_downgrade=True)",
            details={"name": name, "release": release, "accepted": accepted},
        )


def _read(path: Path) -> dict[str, int]:
    try:
        with path.open("rb") as file:
            raw = file.read(_MAX_BYTES + 1)
    except FileNotFoundError:
        return {}
    except (OSError, ValueError) as cause:
        raise UsageError(f"the file of releases {path} cannot be read: {cause}") from cause
    try:
        parsed = parse_json(raw, "it")
    except BundleFormat as cause:
        raise _damaged(path, str(cause)) from cause
    if len(raw) > _MAX_BYTES or parsed.keys() != {"releases_version", "releases"}:
        raise _damaged(path, "it is no file of releases")
    if parsed["releases_version"] != RELEASES_VERSION or not isinstance(parsed["releases"], dict):
        raise _damaged(path, "it is of another version")
    found = parsed["releases"]
    if not all(type(each) is int and each >= 0 for each in found.values()):
        raise _damaged(path, "a release is no whole number")
    return dict(found)


def _damaged(path: Path, why: str) -> UsageError:
    return UsageError(
        f"the file of releases {path} cannot be used: {why}",
        hint="restore it; without it this device would take bundles older than the one it has",
    )


def _write(path: Path, releases: dict[str, int]) -> None:
    raw = {"releases_version": RELEASES_VERSION, "releases": releases}
    text = json.dumps(raw, indent=1, sort_keys=True, ensure_ascii=False)
    write_atomically(path, f"{text}\n".encode())
    # The new name, too, must outlast a power cut.
    folder = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)
