"""Students that an unfinished run leaves, and the time of a layer alone."""

from __future__ import annotations

from pathlib import Path

import pytest
from graphs import parse
from tiny_models import cnn

from edgebm.errors import UsageError
from edgebm.pruning.one_layer import nothing
from edgebm.runtime.journal import Journal
from edgebm.search.small_models import small_model_timer
from edgebm.search.students import Students
from edgebm.target import load_target


def test_a_student_is_found_by_all_that_made_it(tmp_path: Path) -> None:
    students = Students(Journal(tmp_path / "m.resume"))
    parts = {"model": "abc", "sparsity": 0.5}
    assert students.find(parts) is None
    checkpoint = students.checkpoint(parts)
    assert checkpoint is not None
    checkpoint.write_bytes(b"half way")
    students.keep(parts, cnn())
    assert not checkpoint.exists()
    found = students.find(parts)
    assert found is not None
    assert found.param_count() == cnn().param_count()
    assert students.find({**parts, "sparsity": 0.6}) is None
    students.remove()
    assert students.find(parts) is None
    students.remove()
    students.remove()


def test_one_that_cannot_be_read_is_told_of(tmp_path: Path) -> None:
    students = Students(Journal(tmp_path / "m.resume"))
    students.keep({}, cnn())
    (kept,) = (tmp_path / "m.resume.students").iterdir()
    kept.write_bytes(kept.read_bytes()[:100])
    with pytest.raises(UsageError, match="unfinished run") as caught:
        students.find({})
    assert "delete it" in caught.value.hint


def test_without_a_journal_nothing_is_kept() -> None:
    students = Students(Journal())
    students.keep({}, cnn())
    assert students.find({}) is None
    assert students.checkpoint({}) is None
    students.remove()


def test_a_layer_is_timed_once(tmp_path: Path) -> None:
    journal = Journal(tmp_path / "m.resume")
    time_ms = small_model_timer(load_target("host"), journal)
    assert time_ms is not None
    first = time_ms(nothing())
    assert first > 0
    again = small_model_timer(load_target("host"), Journal(tmp_path / "m.resume"))
    assert again is not None
    assert again(nothing()) == first
    other = parse("g (float[1,8] x) => (float[1,8] y) { y = Tanh(x) }")
    time_ms(other)
    assert journal.made == 2


def test_another_board_is_not_timed_here() -> None:
    assert small_model_timer(load_target("raspberry-pi-5"), Journal()) is None
