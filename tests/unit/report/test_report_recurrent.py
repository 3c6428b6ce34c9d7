"""What a report says of recurrent layers and of states."""

from __future__ import annotations

import io
import json
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from edgebm.report.cells import cell_rows, peers
from edgebm.report.html import render_html
from edgebm.report.states import state_sentences
from edgebm.report.table import print_cells


def cell(name: str, **changes: Any) -> dict[str, Any]:
    plain = {
        "name": name,
        "op": "LSTM",
        "inputs": 40,
        "hidden": 128,
        "direction": "forward",
        "resets_after": False,
        "constant_state": True,
        "meant": "int8",
        "ran": "int8",
        "why": "",
    }
    return {**plain, **changes}


@pytest.fixture
def report() -> dict[str, Any]:
    found = json.loads((Path(__file__).parent / "report.json").read_text())
    found["cells"] = [
        cell("first"),
        cell("second", ran="f32"),
        cell("third", op="GRU", resets_after=True, meant="float", ran="f32", why="<reset>"),
        cell("fourth", direction="reverse", ran=None),
    ]
    return found


def test_a_cell_that_does_not_run_in_what_was_meant_says_so(report: dict[str, Any]) -> None:
    first, second, third, fourth = cell_rows(report)
    assert (first.runs_in, first.size, first.kept) == ("int8", "40 to 128", True)
    assert (second.runs_in, second.kept) == ("f32, meant to be int8", False)
    assert (third.runs_in, third.kept, third.why) == ("f32", True, "<reset>")
    assert (fourth.kind, fourth.runs_in, fourth.kept) == ("LSTM, reverse", "-", True)


def test_layers_that_fare_alike_with_others_stand_together(report: dict[str, Any]) -> None:
    groups = peers(report)
    assert [group.names for group in groups] == [("first", "second", "fourth"), ("third",)]
    assert any("linear_before_reset=1" in sentence for sentence in groups[1].sentences)


def test_a_report_without_recurrent_layers_has_no_section(report: dict[str, Any]) -> None:
    del report["cells"]
    assert cell_rows(report) == peers(report) == []
    assert "Recurrent layers" not in render_html(report)


def test_terminal_and_page_name_every_layer(report: dict[str, Any]) -> None:
    console = Console(width=200, record=True, file=io.StringIO())
    print_cells(report, console)
    text, page = console.export_text(), render_html(report)
    for word in ("first", "second", "third", "fourth", "f32, meant to be int8"):
        assert word in text
        assert word in page
    assert "NNCF 3.4 on OpenVINO 2026.4 leaves it in f32 without a word" in text
    assert "<reset>" not in page


def test_states_and_their_drift(report: dict[str, Any]) -> None:
    assert state_sentences(report) == []
    pair = {"input": "h", "output": "h_next", "found": "by structure", "initial": "zeros"}
    report["states"] = [pair]
    assert state_sentences(report) == [
        "States: h from h_next (by structure; at first zeros).",
    ]
    chosen = next(c for c in report["candidates"] if c["id"] == report["after"]["candidate"])
    chosen["drift_db"] = [40.25, None, 31.0]
    sentence = state_sentences(report)[1]
    assert "40.2 dB at the first step, 31.0 dB at the last step" in sentence
    assert sentence in render_html(report)
