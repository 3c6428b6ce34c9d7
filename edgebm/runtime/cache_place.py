"""Where compiled models are kept, and whether."""

from __future__ import annotations

import os
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from edgebm.errors import UsageError

_SYSTEM = Path("/var/lib/edgebm")
_VARIABLE = "EDGEBM_CACHE"


@dataclass(frozen=True, slots=True)
class CacheFolder:
    """A cache of compiled models, for `edgebm.load(cache=...)`.

    `max_bytes` is the most that it may hold; what was not used for the longest time goes first.
    A start waits for `wait_s` seconds while another process compiles the same model, then compiles
    it itself. A model is kept where reading it back takes at most two thirds of the time of
    compiling it and saves `least_saved_ms`, measured on this device; a negative number keeps every
    model. `create` makes the folder where it is missing.
    """

    path: Path
    max_bytes: int = 2 << 30
    wait_s: float = 10.0
    least_saved_ms: float = 50.0
    create: bool = True

    def pays(self, compile_ms: float, reopen_ms: float) -> bool:
        """Whether reading a model back is enough faster than compiling it."""
        saved = compile_ms - reopen_ms
        if self.least_saved_ms < 0:
            return True
        return saved >= max(self.least_saved_ms, compile_ms / 3)


Wanted = str | os.PathLike[str] | CacheFolder | bool | None


def wanted_cache(cache: Wanted) -> CacheFolder | None:
    """What the argument `cache` of `edgebm.load` means here and now; None for no cache.

    None takes the default folder if `EDGEBM_CACHE` names it or it is there already, True makes it.

    Raises:
        UsageError: it is no path, or there is no default folder for True.
    """
    if cache is False or isinstance(cache, CacheFolder):
        return cache or None
    if cache is None or cache is True:
        path = default_folder()
        if path is None and cache:
            raise UsageError(
                "there is no folder for the cache: this user has no home",
                hint=f"give its path, or set {_VARIABLE}",
            )
        asked = bool(cache or os.environ.get(_VARIABLE))
        there = path is not None and os.path.isdir(path)  # noqa: PTH112 - never raises
        return CacheFolder(path) if path is not None and (asked or there) else None
    if not isinstance(cache, (str, os.PathLike)) or not isinstance(os.fspath(cache), str):
        raise UsageError(f"cache {cache!r} is no path, and neither True, False nor None")
    if not os.fspath(cache):
        raise UsageError("cache is an empty path")
    return CacheFolder(Path(os.path.abspath(cache)))  # noqa: PTH100 - resolves no links


def default_folder() -> Path | None:
    """`EDGEBM_CACHE`, else /var/lib/edgebm if it is ours, else below the user's cache folder.

    None where the user has no home. Never in a folder for temporary files, where others write.
    """
    if named := os.environ.get(_VARIABLE):
        return Path(os.path.abspath(named))  # noqa: PTH100
    with suppress(OSError):  # not there, or not to be seen: the user's own is next
        if _SYSTEM.stat().st_uid == os.geteuid():
            return _SYSTEM
    base = os.environ.get("XDG_CACHE_HOME", "")
    if not os.path.isabs(base):  # noqa: PTH117 - the standard ignores relative ones
        home = os.path.expanduser("~")  # noqa: PTH111 - Path.home raises where there is none
        base = str(Path(home, ".cache")) if os.path.isabs(home) else ""  # noqa: PTH117
    return Path(base, "edgebm") if base else None
