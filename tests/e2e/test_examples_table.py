"""`examples/README.md`: the table is that of the figures, and no example is left out."""

from __future__ import annotations

import ast
import json
import sys

import pytest
from example_calls import EXAMPLES, ROOT, call

sys.path.append(str(EXAMPLES))  # examples are no package: its modules find each other so
from runs import EXAMPLES as RUNS
from table import FIGURES, README, change, drawn, gain

FIGURE = {"name": "an image", "before": 0.748, "after": 0.255, "unit": "ms"}


def test_the_table_is_drawn_from_the_figures() -> None:
    text = README.read_text(encoding="utf-8")
    assert drawn(text, json.loads(FIGURES.read_text(encoding="utf-8"))) == text


def test_every_application_has_a_row_with_figures() -> None:
    folders = {path.parent.name for path in EXAMPLES.glob("*/compress.sh")}
    assert set(RUNS) == folders
    assert set(json.loads(FIGURES.read_text(encoding="utf-8"))) == folders


def test_the_programs_know_the_options_that_they_get() -> None:
    for name, example in RUNS.items():
        for step in example.steps:
            program = (EXAMPLES / name / step.program).resolve()
            given = {part for part in step.arguments if part.startswith("--")}
            if program.suffix == ".py":
                tree = ast.walk(ast.parse(program.read_text(encoding="utf-8")))
                texts = {n.value for n in tree if isinstance(n, ast.Constant)}
                assert given <= texts, f"{program}: {given - texts}"
            else:
                assert '"$@"' in program.read_text(encoding="utf-8")


def test_figures_are_written_with_the_digits_that_mean_something() -> None:
    assert change(FIGURE) == "an image 0.748 to 0.255 ms"  # type: ignore[arg-type]
    assert gain(FIGURE).endswith("(**2.9x**)")  # type: ignore[arg-type]
    alone = {**FIGURE, "before": None}
    assert gain(alone) == "an image 0.255 ms"  # type: ignore[arg-type]
    faster = FIGURE | {"before": 100, "after": 250.0, "unit": "tokens/s"}
    assert gain(faster).endswith("100 to 250 tokens/s (**2.5x**)")  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("options", "told"),
    [
        (["nothing"], "no example nothing; there are driving_signs"),
        (["medical_ecg"], "--out DIR is missing"),
        (["--out", "x", "--data", "no_such_folder"], "--data PATH is missing"),
    ],
)
def test_what_is_missing_is_told(options: list[str], told: str) -> None:
    done = call(ROOT, sys.executable, EXAMPLES / "table.py", *options)
    assert done.returncode == 2
    assert told in done.stderr


def test_a_readme_without_a_place_for_the_table() -> None:
    with pytest.raises(SystemExit, match="put them where the table belongs"):
        drawn("# Examples\n", {})
