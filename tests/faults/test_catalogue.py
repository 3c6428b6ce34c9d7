"""The catalogue of faults is complete, and its page says what the tests prove."""

from __future__ import annotations

from pathlib import Path

import pytest
from catalogue import BUNDLES, ROWS, Row
from fault_table import PAGE, Proof, faults, page, proofs


def test_every_row_is_proved_or_has_a_reason() -> None:
    assert list(ROWS) == list(range(1, 72))
    assert faults(ROWS, proofs()) == []


def test_the_page_is_up_to_date(*, update_golden: bool) -> None:
    text = page(ROWS, proofs())
    if update_golden:
        PAGE.write_text(text, encoding="utf-8")
    assert PAGE.read_text(encoding="utf-8") == text, "run pytest with --update-golden"


def test_a_marker_flips_a_row() -> None:
    rows = {1: Row(BUNDLES, "a fault", "not done yet"), 2: Row(BUNDLES, "another", "")}
    assert faults(rows, {}) == ["row 2 has no test and no reason"]
    part, whole = Proof("test_a.py", "test_part", True), Proof("test_a.py", "test_all", False)
    assert "| open: not done yet | test_a.py: test_part |" in page(rows, {1: [part]})
    flipped = page(rows, {1: [part, whole], 2: [whole]})
    assert "| survived | test_a.py: test_part, test_all |" in flipped
    assert "2 survived, 0 open, 0 not applicable" in flipped
    alien = {1: Row(BUNDLES, "a fault", "no such device", applies=False)}
    assert faults(alien, {1: [whole]}) == ["row 1 does not apply, and has tests"]
    assert "not applicable: no such device" in page(alien, {})


@pytest.mark.parametrize(
    ("marker", "words"),
    [
        ("@pytest.mark.row(72)", "numbers of rows"),
        ("@pytest.mark.row(N)", "numbers of rows"),
        ("@pytest.mark.row()", "numbers of rows"),
        ("@pytest.mark.xfail(reason='later')\n@pytest.mark.row(1)", "proves nothing"),
    ],
)
def test_a_marker_that_says_nothing(marker: str, words: str, tmp_path: Path) -> None:
    (tmp_path / "test_x.py").write_text(f"{marker}\ndef test_it(): ...\n")
    with pytest.raises(ValueError, match=words):
        proofs(tmp_path)


def test_markers_are_read_from_the_source(tmp_path: Path) -> None:
    text = "@pytest.mark.row(1, 2)\n@pytest.mark.row(3, partly=True)\ndef test_it(): ...\n"
    (tmp_path / "test_x.py").write_text(text)
    made = proofs(tmp_path)
    assert {number: (p[0].test, p[0].partly) for number, p in made.items()} == {
        1: ("test_it", False), 2: ("test_it", False), 3: ("test_it", True),
    }  # fmt: skip
