"""Progress of long steps on stderr: bars with an ETA on a terminal, short lines elsewhere.

The library calls `progress(step, done, total)` and knows no more. Nothing is drawn between two
calls: a thread that redraws a bar would disturb the latencies that are being measured.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager

from rich.console import Console, RenderableType
from rich.progress import (
    BarColumn,
    Progress,
    TaskID,
    TaskProgressColumn,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)
from rich.text import Text

Report = Callable[[str, int, int], None]
REDRAW_S = 0.1
SAY_AGAIN_S = 10.0


@contextmanager
def show_progress(prefix: str = "", title: str = "") -> Iterator[Report]:
    """Gives a `progress(step, done, total)` to hand to the library.

    A step begins with its first call and ends with `done == total` or the first call of
    another step; `total` 0 means that nobody knows how long it takes. `prefix` stands before
    each name. With a `title`, a last line says how long all steps together took.
    """
    console = Console(stderr=True)
    if not console.is_terminal:
        lines = _Lines(prefix, title)
        try:
            yield lines.update
        finally:
            lines.close()
        return
    columns = (
        TextColumn("{task.description}", table_column=None),
        BarColumn(bar_width=32),
        TaskProgressColumn(),
        TimeElapsedColumn(),
        TextColumn("ETA"),
        TimeRemainingColumn(compact=True),
    )
    with _Titled(*columns, console=console, auto_refresh=False) as drawn:
        drawn.title = title
        yield _Bars(drawn, prefix).update


def left(done: int, total: int, spent_s: float) -> str:
    """`120 of 300, 8 s left`, if the rest is as fast; only what is known of it."""
    if not total:
        return f"{done} done" if done else "still at work"
    counted = f"{done} of {total}"
    return f"{counted}, {clock(spent_s / done * (total - done))} left" if done else counted


def clock(seconds: float) -> str:
    """`8 s`, or `2 min 5 s`."""
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes} min {rest} s" if minutes else f"{rest} s"


def words(step: str) -> str:
    """`quantize_weights` for people."""
    return step.replace("_", " ")


class _Titled(Progress):
    """Bars, and below them how long all of them took so far."""

    title = ""
    _began = 0.0

    def start(self) -> None:
        self._began = time.monotonic()
        super().start()

    def get_renderables(self) -> Iterable[RenderableType]:
        yield from super().get_renderables()
        if self.title:
            yield Text(f"{self.title}: {clock(time.monotonic() - self._began)} so far")


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
    """A line when a step begins, one every ten seconds while it lasts, and one at its end."""

    def __init__(self, prefix: str, title: str = "") -> None:
        self._prefix, self._title = prefix, title
        self._current, self._ended = "", ""
        self._started = self._said = 0.0
        self._began = time.monotonic()

    def update(self, step: str, done: int, total: int) -> None:
        if total and done >= total and step == self._ended:
            return  # its end was told before
        now = time.monotonic()
        if step != self._current:
            self.finish()
            self._current, self._started = step, now
            self._say(f"{words(step)} ...")
        if total and done >= total:
            self.finish()
        elif now - self._said >= SAY_AGAIN_S:
            self._say(f"{words(step)}: {left(done, total, now - self._started)}")

    def finish(self) -> None:
        if self._current:
            self._say(f"{words(self._current)}: {time.monotonic() - self._started:.1f} s")
        self._current, self._ended = "", self._current

    def close(self) -> None:
        """The end of all steps."""
        self.finish()
        if self._title:
            self._say(f"{self._title}: {clock(time.monotonic() - self._began)} in all")

    def _say(self, text: str) -> None:
        self._said = time.monotonic()
        sys.stderr.write(f"{self._prefix}{text}\n")
        sys.stderr.flush()
