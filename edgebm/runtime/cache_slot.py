"""The place of a compiled model as a start sees it, with a cache behind it or none.

The cache itself is imported where there is one: most programs have none.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from typing import Any

from edgebm.runtime.cache_place import CacheFolder
from edgebm.runtime.engines import Engine
from edgebm.runtime.engines.building import Timings
from edgebm.runtime.engines.compiled import Compiled
from edgebm.spec import EngineConfig, Manifest, Variant

Reopen = Callable[[Compiled], Engine]


class Slot:
    """The place of one compiled model, here one that is not used.

    `report` says what became of it: "hit", "stored", "miss" (compiled, and nothing stored), "off"
    or "failed", and why. `warnings` are for people.
    """

    def __init__(self, state: str, why: str) -> None:
        self.report: dict[str, Any] = {"state": state, "why": why}
        self.warnings: list[str] = []
        self.timings: Timings | None = None  # of the vendor's kernels, where there is a cache

    def take(self) -> Compiled | None:
        """What was stored before, or None: then compile, and `keep` it once it is proved."""
        return None

    def reject(self, why: BaseException) -> None:
        """Delete what `take` gave: the vendor refuses it, or it does not pass the self-test."""

    def keep(self, engine: Engine, compile_ms: float, reopen: Reopen) -> None:
        """Store what a proved engine compiled, if reading it back pays."""


def open_slot(
    rules: CacheFolder | None, manifest: Manifest, variant: Variant, config: EngineConfig
) -> AbstractContextManager[Slot]:
    """The place of a variant in the cache; it takes nothing and keeps nothing where there is none.

    Raises:
        BackendUnavailable: the vendor package is missing or does not load.
    """
    if rules is None:
        return nullcontext(Slot("off", "no cache is asked for"))
    from edgebm.runtime.cache import open_cached_slot

    return open_cached_slot(rules, manifest, variant, config)
