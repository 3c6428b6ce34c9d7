"""The cache of compiled models: never needed, never trusted from elsewhere, never in the way.

Whatever goes wrong with it, the model is compiled as if there were none, and the report says why.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager

from edgebm.errors import BackendError, BackendFailed, EngineStale, UsageError
from edgebm.runtime.cache_folder import SUFFIX
from edgebm.runtime.cache_key import Facts, differing, digest, model_facts, place_facts
from edgebm.runtime.cache_place import CacheFolder
from edgebm.runtime.cache_slot import Reopen, Slot
from edgebm.runtime.cache_store import Draft, Store, open_store, reason
from edgebm.runtime.cache_timings import StoredTimings
from edgebm.runtime.engines import BUILT_APART, Engine, cache_facts
from edgebm.runtime.engines.compiled import Compiled
from edgebm.spec import EngineConfig, Manifest, Variant


class OpenSlot(Slot):
    """The place of one compiled model in an open cache."""

    def __init__(self, store: Store, model: Facts, place: Facts, label: str) -> None:
        super().__init__("miss", "")
        self._store, self._place, self._label = store, place, label
        self._key = digest({"model": model, "place": place})
        # Entries of one model share the first part, wherever they were compiled.
        self._family = digest(model).hex()[:16] + "-"
        self._name = f"{self._family}{self._key.hex()}{SUFFIX}"
        self._locks = ExitStack()
        self._holds_lock = self._settled = False
        self.report |= {"path": str(store.folder.path), "entry": self._name, "rejected": 0}

    def take(self) -> Compiled | None:
        found = self._look()
        if found is not None or self._settled:
            return found
        self.report["why"] = self.report["why"] or self._why_missing()
        self._lock(self._store.rules.wait_s)
        if not self._holds_lock:
            return None
        # Whoever held the lock before may have stored it.
        if (found := self._look()) is not None:
            self.close()
        return found

    def reject(self, why: BaseException) -> None:
        self._reject(f"it gave an engine that fails: {why}")
        self._lock(0.0)

    def keep(self, engine: Engine, compile_ms: float, reopen: Reopen) -> None:
        self.report["compile_ms"] = round(compile_ms, 1)
        if not self._holds_lock or self._settled:
            return
        if not self._store.rules.pays(compile_ms, 0.0):
            self.report |= {"state": "off", "why": "it compiles too fast for a cache to pay"}
            return
        try:
            self._keep(engine, compile_ms, reopen)
        except (OSError, MemoryError, BackendError) as cause:
            self._fail("be stored", cause)

    def close(self) -> None:
        """Let go of the lock."""
        self._locks.close()
        self._holds_lock = False

    def _lock(self, wait_s: float) -> None:
        try:
            lock = self._store.folder.lock(self._key.hex()[:2], wait_s)
            self._holds_lock = self._locks.enter_context(lock)
            if self._holds_lock:
                self._store.folder.sweep()
            else:
                self.report["why"] += f"; another process held its lock for {wait_s:g} s"
        except OSError as cause:
            self._fail("be stored", cause)

    def _look(self) -> Compiled | None:
        try:
            head, blobs = self._store.read(self._name, self._key)
        except FileNotFoundError:
            return None
        except EngineStale as why:
            self._reject(str(why))
            return None
        except (OSError, MemoryError) as cause:
            self._fail("be read", cause)
            return None
        self.report["compile_ms"] = head.header["compile_ms"]
        if not blobs:
            self._settled = True
            self._does_not_pay(head.header["reopen_ms"])
            return None
        self._store.folder.touch(self._name)
        self.report |= {"state": "hit", "why": "", "bytes": sum(head.sizes)}
        return Compiled(blobs, tuple(head.header["options"]))

    def _keep(self, engine: Engine, compile_ms: float, reopen: Reopen) -> None:
        compiled = engine.export()
        if compiled is None:
            raise BackendFailed(f"{engine.runtime} gives nothing to keep")
        size = sum(map(len, compiled.blobs))
        if full := self._store.folder.make_room(size, self._store.rules.max_bytes):
            raise OSError(full)
        header = {"facts": self._place, "label": self._label, "compile_ms": round(compile_ms, 1)}
        options = [dict(each) for each in compiled.options]
        with self._store.draft(self._key, {**header, "options": options}, compiled.blobs) as draft:
            reopen_ms = round(self._proved(draft, engine, reopen), 1)
            self.report["reopen_ms"] = reopen_ms
            pays = self._store.rules.pays(compile_ms, reopen_ms)
            if pays:
                self._store.publish(draft, self._name)
        if pays:
            self.report |= {"state": "stored", "bytes": size}
        else:
            # So that the next start need not find it out again.
            note = {**header, "reopen_ms": reopen_ms}
            with self._store.draft(self._key, note, ()) as draft:
                self._store.publish(draft, self._name)
            self._does_not_pay(reopen_ms)
        for other in self._relatives():
            self._store.folder.remove(other)

    def _proved(self, draft: Draft, engine: Engine, reopen: Reopen) -> float:
        """Milliseconds from the disk to an engine that runs the same layers."""
        start = time.perf_counter()
        head, blobs = self._store.read_draft(draft)
        again = reopen(Compiled(blobs, tuple(head.header["options"])))
        taken = time.perf_counter() - start
        try:
            if (again.executed(), again.cells()) != (engine.executed(), engine.cells()):
                raise BackendFailed("read back, it runs other layers than when it was compiled")
        finally:
            again.close()
        return taken * 1e3

    def _does_not_pay(self, reopen_ms: float) -> None:
        compile_ms = self.report["compile_ms"]
        why = f"it compiles in {compile_ms:g} ms, and was read back in {reopen_ms:g} ms"
        self.report |= {"state": "off", "why": f"a cache does not pay: {why}"}

    def _reject(self, why: str) -> None:
        rejected = self.report["rejected"] + 1
        self.report |= {"state": "miss", "why": f"rejected: {why}", "rejected": rejected}
        self.warnings.append(f"an entry of the cache was deleted: {why}")
        try:
            self._store.folder.remove(self._name)
        except OSError as cause:
            self._fail("be deleted", cause)

    def _fail(self, what: str, cause: BaseException) -> None:
        self._settled = True
        why = f"a compiled model cannot {what}: {reason(cause)}"
        self.report |= {"state": "failed", "why": why}
        self.warnings.append(f"the cache {self._store.folder.path} is of no use: {why}")

    def _relatives(self) -> list[str]:
        """Entries of the same model that were compiled for another place."""
        names = (entry.name for entry in self._store.folder.entries())
        return [name for name in names if name.startswith(self._family) and name != self._name]

    def _why_missing(self) -> str:
        try:
            for name in self._relatives():
                other = self._store.head(name).header["facts"]
                return f"it was stored for another {', '.join(differing(other, self._place))}"
        except (OSError, EngineStale) as cause:
            return f"nothing was stored for this place ({reason(cause)})"
        return "nothing was stored before"


@contextmanager
def open_cached_slot(
    rules: CacheFolder, manifest: Manifest, variant: Variant, config: EngineConfig
) -> Iterator[Slot]:
    """The place of a variant in a cache; one that is not used where the cache cannot be.

    Raises:
        BackendUnavailable: the vendor package is missing or does not load.
    """
    with ExitStack() as stack:
        try:
            vendor = cache_facts(variant.runtime, config)
            if vendor is None:
                slot = Slot("off", f"{variant.runtime} compiles nothing that can be kept")
            else:
                place = place_facts(vendor)
                store = stack.enter_context(open_store(rules))
                label = f"{manifest.name} {variant.target}/{variant.runtime} {variant.precision}"
                model = model_facts(manifest, variant, config)
                slot = OpenSlot(store, model, place, label)
                if variant.runtime in BUILT_APART:
                    slot.timings = StoredTimings(
                        store, place, f"kernel timings, {variant.runtime}"
                    )
                stack.callback(slot.close)
        except (UsageError, EngineStale, BackendFailed) as error:
            slot = Slot("failed", str(error))
            hint = f" ({error.hint})" if error.hint else ""
            slot.warnings.append(f"there is no cache: {error}{hint}")
        yield slot
