from __future__ import annotations

import pytest
from rule_page import PAGE, with_tables

from edgebm.backends.tensorrt.rules import RULES


def test_the_page_has_the_rules_as_they_are(update_golden: bool) -> None:
    text = PAGE.read_text(encoding="utf-8")
    made = with_tables(text)
    if update_golden:
        PAGE.write_text(made, encoding="utf-8")
        text = made
    assert text == made, "run pytest with --update-golden"
    assert all(f"| {code} |" in text for code in RULES)


def test_a_page_without_its_marks_is_not_written_over() -> None:
    with pytest.raises(ValueError, match="lost the marks"):
        with_tables("# TensorRT\n")
