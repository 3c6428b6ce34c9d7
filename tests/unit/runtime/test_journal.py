"""The file of measurements: what it loses, what it refuses, and that nothing wrong is read."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from edgebm.errors import UsageError
from edgebm.runtime import journal as module
from edgebm.runtime.entries import Entry, journal_bytes
from edgebm.runtime.journal import Journal
from edgebm.search.journal import measurements_faults, resume_path

PARTS = {"artifact": "ab", "config": {"threads": 1, "shapes": [[1, 2]]}}


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """A file with three entries."""
    place = tmp_path / "m.json"
    journal = Journal(place)
    for turn in range(3):
        journal.keep("turn", {**PARTS, "turn": turn}, [0.1, turn], f"turn {turn}")
    return place


def found(path: Path) -> list[object]:
    journal = Journal(path)
    return [journal.find("turn", {**PARTS, "turn": turn}) for turn in range(3)]


def test_what_is_kept_is_found_again(path: Path) -> None:
    journal = Journal(path)
    assert found(path) == [[0.1, 0], [0.1, 1], [0.1, 2]]
    assert journal.count == 3
    assert journal.notes == []


def test_it_is_json_that_people_can_read(path: Path) -> None:
    header, *lines = map(json.loads, path.read_text().splitlines())
    assert header == {"edgebm_measurements": 1}
    assert [line["about"] for line in lines] == ["turn 0", "turn 1", "turn 2"]
    assert lines[1]["kind"] == "turn"
    assert lines[1]["value"] == [0.1, 1]


def test_another_kind_or_part_is_another_entry(path: Path) -> None:
    journal = Journal(path)
    assert journal.find("trial", {**PARTS, "turn": 0}) is None
    assert journal.find("turn", PARTS) is None
    assert journal.find("turn", {**PARTS, "turn": 0, "more": None}) is None
    assert journal.find("turn", {**PARTS, "turn": 0, "artifact": "ac"}) is None
    deep = {**PARTS, "config": {"threads": 2, "shapes": [[1, 2]]}}
    assert journal.find("turn", {**deep, "turn": 0}) is None
    assert journal.reused == 0
    assert journal.find("turn", {"turn": 0, **PARTS}) == [0.1, 0], "the order does not matter"
    assert journal.reused == 1


def test_nothing_is_written_before_there_is_something(tmp_path: Path) -> None:
    journal = Journal(tmp_path / "m.json")
    assert journal.find("turn", PARTS) is None
    assert not (tmp_path / "m.json").exists()
    journal.remove()


def test_without_a_path_it_is_kept_in_memory() -> None:
    journal = Journal()
    journal.keep("turn", PARTS, 1.5)
    assert journal.find("turn", PARTS) == 1.5
    journal.remove()


def test_an_entry_without_a_json_form_is_left_out(path: Path) -> None:
    before = path.read_bytes()
    journal = Journal(path)
    journal.keep("score", PARTS, {"value": float("nan")})
    assert journal.find("score", PARTS) is None
    assert path.read_bytes() == before


def test_a_file_cut_at_any_byte_loses_the_last_entry_only(path: Path) -> None:
    whole = path.read_bytes()
    ends = [i + 1 for i, byte in enumerate(whole) if byte == ord("\n")]
    for size in range(len(whole)):
        path.write_bytes(whole[:size])
        journal = Journal(path)
        assert journal.notes == []
        assert journal.count == max(0, sum(end <= size for end in ends) - 1)
    path.write_bytes(whole[: ends[2] + 25])
    Journal(path).keep("turn", {**PARTS, "turn": 2}, [0.1, 2], "turn 2")
    assert path.read_bytes() == whole


def test_a_process_that_is_killed_has_kept_every_entry(tmp_path: Path) -> None:
    program = (
        "import os, signal, sys\nfrom pathlib import Path\n"
        "from edgebm.runtime.journal import Journal\n"
        "journal = Journal(Path(sys.argv[1]))\n"
        "for k in range(50): journal.keep('turn', {'turn': k}, k)\n"
        "os.kill(os.getpid(), signal.SIGKILL)\n"
    )
    place = tmp_path / "m.json"
    done = subprocess.run([sys.executable, "-c", program, str(place)], check=False)
    assert done.returncode == -9
    assert Journal(place).count == 50


@pytest.mark.parametrize(
    ("old", "new"),
    [(b"0.1, 1", b"0.2, 1"), (b'"value"', b'"valve"'), (b"turn 1", b"turn\xff1"), (b"{", b"[")],
)
def test_damage_is_said_and_nothing_of_the_file_is_used(
    path: Path, old: bytes, new: bytes
) -> None:
    damaged = path.read_bytes().replace(old, new)
    path.write_bytes(damaged)
    journal = Journal(path)
    (note,) = journal.notes
    assert "is not used" in note.replace("are not", "is not")
    assert "damaged" in note
    assert found(path) == [None] * 3
    assert path.read_bytes() == damaged, "reading changes nothing"
    journal.keep("turn", {**PARTS, "turn": 0}, 7)
    assert path.with_name("m.json.damaged").read_bytes() == damaged
    assert found(path) == [7, None, None]


def test_another_version_is_not_read(path: Path) -> None:
    path.write_bytes(path.read_bytes().replace(b'measurements": 1', b'measurements": 2', 1))
    journal = Journal(path)
    assert "it has version 2, this edgebm reads 1" in journal.notes[0]
    assert journal.count == 0


def test_a_full_disk_ends_the_keeping_and_not_the_run(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    journal = Journal(path)
    monkeypatch.setattr(os, "write", lambda file, data: 10)
    journal.keep("turn", {**PARTS, "turn": 3}, 3)
    assert "cannot be written" in journal.notes[0]
    assert "space" in journal.notes[0]
    assert journal.find("turn", {**PARTS, "turn": 3}) == 3
    monkeypatch.undo()
    assert found(path) == [[0.1, 0], [0.1, 1], [0.1, 2]]


def test_how_long_a_step_took_is_no_measurement(path: Path) -> None:
    journal = Journal(path)
    journal.keep(module.SECONDS, PARTS, 3.0)
    assert journal.find(module.SECONDS, PARTS) == 3.0
    assert (journal.made, journal.reused) == (0, 0)


def test_it_knows_the_bundle_of_an_unfinished_run(path: Path, tmp_path: Path) -> None:
    bundle, other = tmp_path / "a.edgebm", tmp_path / "b.edgebm"
    bundle.write_bytes(b"best so far")
    other.write_bytes(b"finished")
    Journal(path).keep_bundle(bundle)
    journal = Journal(path)
    assert journal.wrote(bundle)
    assert not journal.wrote(other)
    assert not journal.wrote(tmp_path / "none.edgebm")


def test_a_file_that_was_written_at_once_knows_how_long_it_is(tmp_path: Path) -> None:
    entries = [Entry("turn", {**PARTS, "turn": turn}, turn) for turn in range(3)]
    place = tmp_path / "m.json"
    whole = journal_bytes(entries)
    place.write_bytes(whole)
    journal = Journal(place)
    assert found(place) == [0, 1, 2]
    journal.keep("turn", {**PARTS, "turn": 3}, 3)
    assert Journal(place).count == 4
    for size in (len(whole) - 1, whole.rindex(b"\n", 0, -1) + 1):
        place.write_bytes(whole[:size])
        short = Journal(place)
        assert short.is_set_aside
        assert "it is not whole: 2 of 3 entries are there" in short.notes[0]


def test_asking_whether_it_is_there_is_no_use(path: Path) -> None:
    journal = Journal(path)
    assert journal.has("turn", {**PARTS, "turn": 1})
    assert not journal.has("turn", PARTS)
    assert journal.reused == 0


def test_where_measurements_cannot_lie(tmp_path: Path, path: Path) -> None:
    model = tmp_path / "model.onnx"
    model.write_bytes(b"\x08\x08weights")
    assert measurements_faults(path) == []
    assert measurements_faults(tmp_path / "new.json") == []
    assert "is a folder" in measurements_faults(tmp_path)[0]
    assert "does not exist" in measurements_faults(tmp_path / "none" / "m.json")[0]
    assert "holds no measurements" in measurements_faults(model)[0]
    assert "is an input" in measurements_faults(path, (str(path),))[0]
    path.write_bytes(path.read_bytes()[:10])
    assert measurements_faults(path) == [], "killed in its first line"


def test_an_unreadable_file_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="cannot be read"):
        Journal(tmp_path)


def test_the_resume_file_lies_beside_the_bundle() -> None:
    assert resume_path(Path("a/m.edgebm")) == Path("a/m.edgebm.resume")
    assert len(resume_path(Path("ü" * 127)).name.encode()) <= 255
