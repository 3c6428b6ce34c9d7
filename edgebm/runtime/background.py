"""An engine that is built while a session answers by another one."""

from __future__ import annotations

import threading
import time
import weakref
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import TYPE_CHECKING, Any, Literal

from edgebm.errors import ResourceError
from edgebm.runtime.build_rules import BuildRules
from edgebm.runtime.engines.building import Building

if TYPE_CHECKING:
    from edgebm.runtime.runner import Session

State = Literal["running", "done", "failed", "cancelled"]
_WAIT_S = 10.0  # for a build that was told to stop


class BackgroundBuild:
    """Builds on a thread of its own, then hands the proved engine to the session.

    `opened(building)` is what a load does for `name`. The session is held weakly: one that is
    forgotten ends its build.
    """

    def __init__(
        self,
        session: Session,
        name: str,
        opened: Callable[[Building], Session],
        rules: BuildRules,
    ) -> None:
        self.name = name
        self._session = weakref.ref(session)
        self._opened, self._rules = opened, rules
        self._serving = session.report()
        self._state: State = "running"
        self._why = ""
        self._progress: tuple[str, int, int] | None = None
        self._cancelled = threading.Event()
        self._began_s, self._took_s = time.monotonic(), 0.0
        self._thread = threading.Thread(target=self._work, name="edgebm-build", daemon=True)

    def start(self) -> None:
        """Begin to build.

        Raises:
            ResourceError: no thread can be started.
        """
        try:
            self._thread.start()
        except RuntimeError as cause:
            raise ResourceError(f"no thread for the build could be started: {cause}") from cause

    def cancel(self) -> None:
        """Stop the build and wait until it has ended, for ten seconds at most."""
        self._cancelled.set()
        # Whoever closes the session in a callback of the build would wait for himself.
        if self._thread is not threading.current_thread() and self._thread.ident is not None:
            self._thread.join(_WAIT_S)

    def told(self, report: Mapping[str, Any]) -> dict[str, Any]:
        """What the report of the session shall say beside `report`, that of its engine."""
        state, why = self._state, self._why
        build: dict[str, Any] = {
            "name": self.name,
            "state": state,
            "why": why,
            "elapsed_s": round(self._elapsed_s(state), 1),
        }
        if self._progress is not None:
            build |= dict(zip(("phase", "done", "total"), self._progress, strict=True))
        if (report["target"], report["runtime"]) != self._served():
            return {"build": build}
        return {"build": build, "degraded": True, "why": self._sentence(state, why)}

    def _served(self) -> tuple[str, str]:
        return self._serving["target"], self._serving["runtime"]

    def _elapsed_s(self, state: State) -> float:
        return time.monotonic() - self._began_s if state == "running" else self._took_s

    def _sentence(self, state: State, why: str) -> str:
        serving = f"{'/'.join(self._served())} answers"
        if state == "failed":
            return f"{self.name} could not be built: {why}; {serving}"
        if state == "cancelled":
            return f"the build of {self.name} was stopped; {serving}"
        phase = ""
        if self._progress is not None:
            step, done, total = self._progress
            phase = f" ({step} {done}/{total})" if total else f" ({step})"
        spent = f"{self._elapsed_s(state):.0f} s so far"
        return f"{self.name} is being built{phase}, {spent}; {serving} meanwhile"

    def _is_cancelled(self) -> bool:
        return self._cancelled.is_set() or self._session() is None

    def _show(self, phase: str, done: int, total: int) -> None:
        self._progress = phase, done, total
        if self._rules.progress is not None:
            self._rules.progress(phase, done, total)

    def _work(self) -> None:
        building = replace(
            self._rules.building(), progress=self._show, is_cancelled=self._is_cancelled
        )
        try:
            proved = self._opened(building)
            session = self._session()
            is_used = session is not None and session.go_over_to(proved)
            del session
            if not is_used:
                proved.close()
            self._end("done" if is_used else "cancelled", "")
        except BaseException as error:  # noqa: BLE001 - the report says it, the session goes on
            why = str(error) or type(error).__name__
            self._end("cancelled" if self._is_cancelled() else "failed", why)

    def _end(self, state: State, why: str) -> None:
        self._took_s = time.monotonic() - self._began_s
        self._why = why
        self._state = state
