"""Progress of long steps on stderr: bars with an ETA on a terminal, short lines elsewhere.

The library calls `progress(step, done, total)` and knows no more. Nothing is drawn between two
calls: a thread that redraws a bar would disturb the latencies that are being measured.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.progress import (
    BarColumn,
    Progress,
    TaskID,
    TaskProgressColumn,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)

Report = Callable[[str, int, int], None]
REDRAW_S = 0.1


@contextmanager
def show_progress(prefix: str = "") -> Iterator[Report]:
    """Gives a `progress(step, done, total)` to hand to the library.

    A step begins with its first call and ends with `done == total` or the first call of
    another step; `total` 0 means that nobody knows how long it takes. `prefix` stands before
    each name.
    """
    console = Console(stderr=True)
    if not console.is_terminal:
        lines = _Lines(prefix)
        try:
            yield lines.update
        finally:
            lines.finish()
        return
    columns = (
        TextColumn("{task.description}", table_column=None),
        BarColumn(bar_width=32),
        TaskProgressColumn(),
        TimeElapsedColumn(),
        TextColumn("ETA"),
        TimeRemainingColumn(compact=True),
    )
    with Progress(*columns, console=console, auto_refresh=False) as drawn:
        yield _Bars(drawn, prefix).update


def words(step: str) -> str:
    """`quantize_weights` for people."""
    return step.replace("_", " ")


class _Bars:
    def __init__(self, drawn: Progress, prefix: str) -> None:
        self._drawn, self._prefix = drawn, prefix
        self._tasks: dict[str, TaskID] = {}
        self._current = ""
        self._redrawn = 0.0

    def update(self, step: str, done: int, total: int) -> None:
        if step != self._current and self._current:
            self._finish(self._current)
        new = step not in self._tasks
        if new:
            name = f"{self._prefix}{words(step)}".replace("[", "\\[")
            self._tasks[step] = self._drawn.add_task(name, total=total or None)
        self._current = step
        self._drawn.update(self._tasks[step], completed=done, total=total or None)
        now = time.monotonic()
        if new or done >= total or now - self._redrawn >= REDRAW_S:
            self._redrawn = now
            self._drawn.refresh()

    def _finish(self, step: str) -> None:
        task = next(t for t in self._drawn.tasks if t.id == self._tasks[step])
        end = task.total if task.total else max(task.completed, 1)
        self._drawn.update(task.id, total=end, completed=end)


class _Lines:
    """One line when a step begins and one when it has ended."""

    def __init__(self, prefix: str) -> None:
        self._prefix, self._current, self._ended = prefix, "", ""
        self._started = 0.0

    def update(self, step: str, done: int, total: int) -> None:
        if total and done >= total and step == self._ended:
            return  # its end was told before
        if step != self._current:
            self.finish()
            self._current, self._started = step, time.monotonic()
            self._say(f"{words(step)} ...")
        if total and done >= total:
            self.finish()

    def finish(self) -> None:
        if self._current:
            self._say(f"{words(self._current)}: {time.monotonic() - self._started:.1f} s")
        self._current, self._ended = "", self._current

    def _say(self, text: str) -> None:
        sys.stderr.write(f"{self._prefix}{text}\n")
        sys.stderr.flush()
