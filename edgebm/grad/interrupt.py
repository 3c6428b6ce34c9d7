"""Ctrl-C and SIGTERM while a step is under way: they wait until it is done."""

from __future__ import annotations

import signal
import threading
from types import FrameType, TracebackType
from typing import Any

_SIGNALS = (signal.SIGINT, signal.SIGTERM)


class Interrupts:
    """While it lasts, the first signal is kept in `pending`; a second one acts at once.

    Only the main thread can do so; in others, and where `held` is not asked for, signals act as
    they did. `agreed` is set by processes that train together, when one of them got a signal.
    """

    def __init__(self, *, held: bool) -> None:
        self._held = held and threading.current_thread() is threading.main_thread()
        self._before: dict[int, Any] = {}
        self.pending = 0
        self.agreed = False

    def __enter__(self) -> Interrupts:
        if self._held:
            self._before = {number: signal.signal(number, self._keep) for number in _SIGNALS}
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._give_back()
        if self.pending and error is None:  # it came too late to end anything in here
            signal.raise_signal(self.pending)

    def deliver(self, message: str) -> None:
        """Let the signal do what it would have done; Ctrl-C with `message`."""
        self._give_back()
        if self.pending == signal.SIGTERM:
            signal.raise_signal(signal.SIGTERM)
        raise KeyboardInterrupt(message)

    def _keep(self, number: int, frame: FrameType | None) -> None:
        if self.pending:
            self._give_back()
            signal.raise_signal(number)
        self.pending = number

    def _give_back(self) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)
        self._before = {}
