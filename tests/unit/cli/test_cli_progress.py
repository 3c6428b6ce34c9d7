from __future__ import annotations

import io
import threading

import pytest
from rich.console import Console
from rich.progress import Progress

from edgebm.cli import progress as progress_module
from edgebm.cli.progress import _Bars, _Titled, clock, left, show_progress


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


def test_long_steps_say_how_far_they_are(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    now = [0.0]
    monkeypatch.setattr(progress_module.time, "monotonic", lambda: now[0])
    with show_progress(title="m.edgebm") as progress:
        for done in range(0, 301, 20):
            progress("quantize_activations", done, 300)
            now[0] += 1.0
        progress("build", 0, 0)
        now[0] += 10.0
        progress("build", 0, 0)
    assert capsys.readouterr().err.splitlines() == [
        "quantize activations ...",
        "quantize activations: 200 of 300, 5 s left",
        "quantize activations: 15.0 s",
        "build ...",
        "build: still at work",
        "build: 10.0 s",
        "m.edgebm: 26 s in all",
    ]


def test_what_is_left_in_words() -> None:
    assert left(120, 300, 12.0) == "120 of 300, 18 s left"
    assert left(0, 300, 12.0) == "0 of 300"
    assert left(7, 0, 12.0) == "7 done"
    assert left(1, 100, 2.0) == "1 of 100, 3 min 18 s left"
    assert (clock(0.4), clock(59.6)) == ("0 s", "1 min 0 s")


def test_a_title_below_the_bars_and_still_no_thread() -> None:
    stream = io.StringIO()
    console = Console(file=stream, force_terminal=True, width=100)
    before = threading.active_count()
    with _Titled(console=console, auto_refresh=False) as drawn:
        drawn.title = "m[1].edgebm"
        _Bars(drawn, "").update("calibrate", 1, 10)
        assert threading.active_count() == before
    assert "m[1].edgebm: 0 s so far" in stream.getvalue()
