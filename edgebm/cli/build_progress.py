"""How far a build is, in one line on stderr: click only, as devices have no more."""

from __future__ import annotations

import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import click

_REDRAW_S = 0.2
_SAY_AGAIN_S = 10.0  # where there is no terminal, a line for each phase and now and then one


@contextmanager
def shown_on_stderr() -> Iterator[Callable[[str, int, int], None]]:
    """Gives a `progress(phase, done, total)`; any thread may call it.

    On a terminal one line is drawn anew; elsewhere lines are written one below the other.
    """
    line = _Line(is_terminal=sys.stderr.isatty())
    try:
        yield line.update
    finally:
        line.close()


class _Line:
    def __init__(self, *, is_terminal: bool) -> None:
        self._is_terminal = is_terminal
        self._lock = threading.Lock()
        self._began_s = time.monotonic()
        self._phase, self._shown_s, self._width = "", -_SAY_AGAIN_S, 0

    def update(self, phase: str, done: int, total: int) -> None:
        with self._lock:
            now_s = time.monotonic()
            wait_s = _REDRAW_S if self._is_terminal else _SAY_AGAIN_S
            is_news = phase != self._phase or 0 < total <= done
            if not is_news and now_s - self._shown_s < wait_s:
                return
            self._phase, self._shown_s = phase, now_s
            count = f" {done}/{total}" if total else ""
            self._write(f"build: {phase}{count}, {now_s - self._began_s:.0f} s")

    def _write(self, text: str) -> None:
        if not self._is_terminal:
            click.echo(text, err=True)
            return
        click.echo(f"\r{text.ljust(self._width)}", nl=False, err=True)
        self._width = len(text)

    def close(self) -> None:
        """End the line, so that what is written next begins a new one."""
        with self._lock:
            if self._width:
                click.echo(err=True)
                self._width = 0
