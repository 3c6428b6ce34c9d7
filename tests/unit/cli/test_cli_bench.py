from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from edgebm.cli import bench
from edgebm.cli.limits import FIELDS, calls_needed, missed_limits, parse_limits
from edgebm.cli.main import main
from edgebm.errors import UsageError
from edgebm.runtime.bench import Timing
from edgebm.runtime.board import Board

DATA = Path(__file__).parents[2] / "device" / "data"
COMMAND = ["bench", str(DATA / "image.edgebm"), "--seconds", "0.05"]


@pytest.fixture
def boards(monkeypatch: pytest.MonkeyPatch) -> list[Board]:
    """What the board looks like before and after the run."""
    looks = [Board(), Board()]
    found: Iterator[Board] = iter(looks)
    monkeypatch.setattr(bench, "read_board", lambda: next(found))
    return looks


def test_limits_are_read_with_their_units() -> None:
    assert parse_limits(["p99=20ms", " max = 1s , p50=.5us", "p99.9=2.5ms,mean=3.ms"]) == {
        "p99": 20.0,
        "max": 1000.0,
        "p50": 0.0005,
        "p99.9": 2.5,
        "mean": 3.0,
    }


def test_every_fault_is_named_with_its_text() -> None:
    wrong = {
        "p42=1ms": "there is no figure 'p42'",
        "maxx=1ms": "'max' may be meant",
        "p99=20": "20 has no unit, such as 20ms",
        "p50=1h": "'h' is no unit",
        "p90=-1ms": "'-1ms' is no time",
        "p95=fast": "'fast' is no time",
        "mean": "NAME=TIME is expected",
        "=1ms": "NAME=TIME is expected",
    }
    with pytest.raises(UsageError) as caught:
        parse_limits([*wrong, "max=1s,max=2s,"])
    for text, words in wrong.items():
        assert f"{text!r}: " in str(caught.value)
        assert words in str(caught.value)
    assert "'max=2s': max is limited twice" in str(caught.value)
    assert len(caught.value.details["faults"]) == len(wrong) + 2
    assert "p99=20ms" in caught.value.hint


def test_every_figure_is_a_field_and_has_a_number_of_calls() -> None:
    timing = Timing(1.0, 2.0, None, 1.2, 9.0, 100)
    assert all(hasattr(timing, field) for field in FIELDS.values())
    assert [calls_needed(name) for name in ("max", "p50", "p99.9")] == [1, 1, 6636]


def test_a_limit_that_cannot_be_judged_is_missed() -> None:
    timing = Timing(1.0, 2.0, None, 1.2, 9.0, 100)
    missed = missed_limits(timing, {"p50": 1.0, "max": 8.0, "p99": 50.0}, seconds=5)
    assert missed == [
        "max is 9 ms, 8 ms were required",
        "p99 is not known: 662 calls are needed, 100 were made, 562 are missing; try --seconds 37",
    ]


def test_bench_ends_with_3_when_a_limit_is_missed(capsys: pytest.CaptureFixture[str]) -> None:
    assert main([*COMMAND, "--require", "max=1000s"]) == 0
    out = capsys.readouterr().out
    for name in ("p99", "threads", "precision", "layers that ran", "clock", "temperature", "run"):
        assert name in out
    assert main([*COMMAND, "--require", "max=0us,p50=1000s", "--json"]) == 3
    captured = capsys.readouterr()
    found = json.loads(captured.out)
    assert found["required"] == {"max": 0.0, "p50": 1e6}
    assert len(found["missed"]) == 1
    assert "missed: max is" in captured.err


def test_a_percentile_that_was_not_earned_is_missed(capsys: pytest.CaptureFixture[str]) -> None:
    command = [*COMMAND[:2], "--seconds", "1e-9"]
    assert main([*command, "--require", "p90=1000s"]) == 3
    assert "64 calls are needed, 1 were made, 63 are missing" in capsys.readouterr().err
    assert main(command) == 0
    assert "needs 64 calls" in capsys.readouterr().out


def test_wrong_limits_end_with_2_before_anything_is_loaded(
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert main(["bench", "none.edgebm", "--require", "p99=20,x=1ms"]) == 2
    error = capsys.readouterr().err
    assert "'p99=20'" in error
    assert "'x=1ms'" in error


@pytest.mark.row(61)
def test_a_throttled_run_is_invalid(
    boards: list[Board], capsys: pytest.CaptureFixture[str]
) -> None:
    boards[:] = [Board(events={"heat": 1}), Board(events={"heat": 2})]
    assert main([*COMMAND]) == 0
    captured = capsys.readouterr()
    assert "INVALID" in captured.out
    assert "INVALID: the processor was throttled because of heat" in captured.err


@pytest.mark.row(61)
def test_a_throttled_run_fails_every_requirement(
    boards: list[Board], capsys: pytest.CaptureFixture[str]
) -> None:
    boards[:] = [Board(), Board(throttled=("the firmware caps the clock",))]
    assert main([*COMMAND, "--json", "--require", "max=1000s"]) == 3
    found = json.loads(capsys.readouterr().out)
    assert (found["valid"], found["missed"]) == (False, [])
    assert found["invalid"] == ["the firmware caps the clock"]
    assert found["board"]["after"]["throttled"] == ["the firmware caps the clock"]


def test_what_does_not_spoil_a_run_is_a_warning(
    boards: list[Board], capsys: pytest.CaptureFixture[str]
) -> None:
    boards[:] = [
        Board(quota_stops=1, clock_mhz=1800.0, temperatures_c={"soc": 60.0}),
        Board(quota_stops=4, clock_mhz=1799.6, temperatures_c={"soc": 71.4}, hot=("it is hot",)),
    ]
    assert main([*COMMAND, "--require", "max=1000s"]) == 0
    captured = capsys.readouterr()
    assert "1800 to 1800 MHz" in captured.out
    assert "60 to 71 C" in captured.out
    assert "warning: a cgroup's CPU quota stopped its processes 3 times" in captured.err
    assert "warning: it is hot" in captured.err
