"""What a builder measured of kernels on this device: one entry of the cache beside the models."""

from __future__ import annotations

from edgebm.errors import EngineStale
from edgebm.runtime.cache_folder import SUFFIX
from edgebm.runtime.cache_key import Facts, digest
from edgebm.runtime.cache_store import Store

_PREFIX = "timings-"


class StoredTimings:
    """Timings for one vendor version on one device, whatever model they were measured for.

    Nothing depends on them but the time of the next build: what is wrong with them is as if there
    were none.
    """

    def __init__(self, store: Store, place: Facts, label: str) -> None:
        self._store, self._label = store, label
        # Another edgebm measures the same kernels.
        self._place = {name: fact for name, fact in place.items() if name != "edgebm"}
        self._key = digest({"timings": self._place})
        self._name = f"{_PREFIX}{self._key.hex()}{SUFFIX}"

    def read(self) -> bytes:
        try:
            _, blobs = self._store.read(self._name, self._key)
        except (OSError, MemoryError, EngineStale):  # the next build measures them again
            return b""
        return blobs[0] if len(blobs) == 1 else b""

    def write(self, content: bytes) -> None:
        if not content:
            return
        header = {"facts": self._place, "label": self._label, "compile_ms": 0.0, "options": [{}]}
        try:
            if self._store.folder.make_room(len(content), self._store.rules.max_bytes):
                return
            with self._store.draft(self._key, header, [content]) as draft:
                self._store.publish(draft, self._name)
        except (OSError, MemoryError):  # a full disk: the plan itself tells of it
            return
