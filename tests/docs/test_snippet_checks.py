"""The checks of snippets find what they are there for: each case has one mistake planted in it."""

from __future__ import annotations

from pathlib import Path

import pytest
import snippet_data
import snippet_python
import snippet_shell
from snippet_blocks import Block, blocks

from edgebm.errors import RecipeError, TargetError

SIGNS = "examples/driving_signs/README.md"


def block(language: str, text: str, page: str = "page.md", exit_code: int = 0) -> Block:
    return Block(page, 1, language, text, parse_only=True, exit_code=exit_code)


@pytest.mark.parametrize(
    ("line", "fault"),
    [
        ("edgebm compres model.onnx", "no command compres"),
        ("edgebm compress model.onnx --max-dorp 1", "--max-dorp"),
        ("edgebm compress -d train.npz", "model is missing"),
        ("edgebm report a.edgebm b.edgebm c.edgebm", "too much"),
        ("X=1 .venv/bin/edgebm bench m.edgebm --secs 3 > out.txt", "--secs"),
        ("torchrun -m edgebm distill --techer a.onnx", "--techer"),
        ("pip install 'edgebm[trian]'", "no such extra"),
        ("echo 'open", "unexpected EOF"),
        ("python nowhere.py", "there is no nowhere.py"),
    ],
)
def test_a_wrong_line_is_found(line: str, fault: str) -> None:
    with pytest.raises(AssertionError, match=fault):
        snippet_shell.check(block("sh", f"{line}\n"))


def test_lines_that_are_right_pass() -> None:
    text = "edgebm compress t5#decoder -d a.npz \\\n  -o b.edgebm  # a comment\n"
    snippet_shell.check(block("sh", f"{text}$UNSET && edgebm doctor\n"))


def test_a_program_of_an_example_gets_options_that_it_has() -> None:
    snippet_shell.check(block("sh", "python device.py a.edgebm --frames b.npz --slow 3\n", SIGNS))
    with pytest.raises(AssertionError, match="not the program's arguments"):
        snippet_shell.check(block("sh", "python device.py a.edgebm --slowly 3\n", SIGNS))


def test_options_that_a_script_hands_on_are_options() -> None:
    snippet_shell.check(block("sh", "sh compress.sh signs --threads 1\n", SIGNS))
    with pytest.raises(AssertionError, match="--thraeds"):
        snippet_shell.check(block("sh", "sh compress.sh signs --thraeds 1\n", SIGNS))


def test_another_exit_code_than_the_page_says_is_a_failure(tmp_path: Path) -> None:
    snippet_shell.run(
        block("sh", "edgebm inspect none.edgebm\nfalse || exit 2\n", exit_code=2), tmp_path
    )
    with pytest.raises(AssertionError, match="exit code 2 of: edgebm inspect"):
        snippet_shell.run(block("sh", "edgebm inspect none.edgebm\n"), tmp_path)
    with pytest.raises(AssertionError, match="exit code 1 of: false"):
        snippet_shell.run(block("console", "$ false | cat\nsome output\n"), tmp_path)


@pytest.mark.parametrize(
    ("text", "fault"),
    [
        ("edgebm.compres(model)", "has no compres"),
        ("edgebm.load('a', trail_s=2)", "takes no {'trail_s'}"),
        ("s = edgebm.load('a')\ns.rum(x)", "Session has no rum"),
        ("with session.pipeline(dpeth=2) as loop:\n    pass", "takes no {'dpeth'}"),
        ("with edgebm.load('a').stream() as s:\n    s.setp(x)", "Stream has no setp"),
        ("from edgebm.errors import InputShap", "has no InputShap"),
    ],
)
def test_a_wrong_name_is_found(text: str, fault: str) -> None:
    with pytest.raises(AssertionError, match=fault):
        snippet_python.check(block("python", text))


def test_python_runs_and_its_warnings_are_errors() -> None:
    names: dict[str, object] = {}
    snippet_python.run(block("python", "x = 1 + 1\n"), names)
    assert names["x"] == 2
    with pytest.raises(UserWarning):
        snippet_python.run(block("python", "import warnings\nwarnings.warn('odd')\n"), names)


def test_recipes_and_targets_are_read_by_their_parsers(tmp_path: Path) -> None:
    snippet_data.check(block("yaml", "preprocess: {size: [8, 8], in_graph: true}\n"), tmp_path)
    with pytest.raises(RecipeError, match="sise"):
        snippet_data.check(block("yaml", "preprocess: {sise: [8, 8]}\n"), tmp_path)
    with pytest.raises(TargetError, match="runtimes"):
        snippet_data.check(block("yaml", "name: a\ndescription: b\narch: x86_64\n"), tmp_path)


def test_marks_are_read_and_need_a_reason(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("snippet_blocks.ROOT", tmp_path)
    (tmp_path / "p.md").write_text(
        "<!-- snippet: parse; needs a GPU -->\n```sh\na\n```\n"
        "<!-- snippet: exit 3; a gate -->\n```sh\nb \\\n  c\n```\n"
        "<!-- snippet: parse; -->\n```sh\n```\n<!-- snippet: skip; x -->\n```sh\n```\n"
        "```python\n# program.py\n```\n"
    )
    first, second, third, fourth, last = blocks("p.md")
    assert (first.parse_only, first.exit_code, first.fault) == (True, 0, "")
    assert (second.parse_only, second.exit_code, second.text) == (False, 3, "b \\\n  c\n")
    assert third.fault == "the mark gives no reason"
    assert fourth.fault.startswith("no mark that is known")
    assert (last.file, last.line) == ("program.py", 16)
