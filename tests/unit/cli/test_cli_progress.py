from __future__ import annotations

import io
import threading

import pytest
from rich.console import Console
from rich.progress import Progress

from edgebm.cli.progress import _Bars, show_progress


def test_short_lines_where_stderr_is_no_terminal(capsys: pytest.CaptureFixture[str]) -> None:
    with show_progress("cnn: ") as progress:
        for done in range(4):
            progress("calibrate", done, 3)
        progress("calibrate", 3, 3)
        progress("build_all", 0, 2)
        progress("measure", 0, 0)
    captured = capsys.readouterr()
    assert captured.out == ""
    lines = captured.err.splitlines()
    assert [line.partition(" ")[2].rstrip(" s.0123456789") for line in lines] == [
        "calibrate",
        "calibrate:",
        "build all",
        "build all:",
        "measure",
        "measure:",
    ]
    assert all(line.startswith("cnn: ") for line in lines)


def test_lines_end_when_the_work_fails(capsys: pytest.CaptureFixture[str]) -> None:
    def work() -> None:
        with show_progress() as progress:
            progress("build", 0, 2)
            raise ValueError

    with pytest.raises(ValueError, match=r"^$"):
        work()
    assert capsys.readouterr().err.splitlines()[-1].startswith("build: ")


def test_bars_name_every_step_and_no_thread_draws_them() -> None:
    stream = io.StringIO()
    console = Console(file=stream, force_terminal=True, width=100)
    before = threading.active_count()
    with Progress(console=console, auto_refresh=False) as drawn:
        bars = _Bars(drawn, "[x] ")
        bars.update("calibrate", 0, 10)
        bars.update("calibrate", 4, 10)
        bars.update("measure", 0, 0)
        bars.update("measure", 1, 0)
        bars.update("write", 1, 1)
        assert threading.active_count() == before
        first, second, third = drawn.tasks
    assert "[x] calibrate" in stream.getvalue()
    # a step that was left is shown as done, whatever was counted
    assert (first.completed, first.total) == (10, 10)
    assert second.finished
    assert third.finished
