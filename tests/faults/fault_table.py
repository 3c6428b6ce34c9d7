"""Which tests have the marker `row`, and the page that is made of them."""

from __future__ import annotations

import ast
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from catalogue import PARTS, ROWS, Row

TESTS = Path(__file__).parents[1]
PAGE = TESTS.parent / "docs" / "reference" / "faults.md"
_HEAD = """\
# Faults and what becomes of them

What a robot's software must survive, by number. *Survived* means that the tests named prove it, on
every runtime that is installed; *open* and *not applicable* say why.
`pytest tests/faults/test_catalogue.py --update-golden` makes this page from the markers of the
tests and from `tests/faults/catalogue.py`.

"""


@dataclass(frozen=True, slots=True)
class Proof:
    """A test with the marker `row`; `partly` if it proves a part of the row only."""

    file: str
    test: str
    partly: bool


def proofs(folder: Path = TESTS) -> dict[int, list[Proof]]:
    """The tests of each row, read from the source, so that none has to be run or collected.

    Raises:
        ValueError: a marker that cannot be read, or a proof that is expected to fail.
    """
    found: dict[int, list[Proof]] = defaultdict(list)
    for path in sorted(folder.rglob("test_*.py")):
        text = path.read_text(encoding="utf-8")
        if "mark.row(" not in text:
            continue
        file = path.relative_to(folder).as_posix()
        for test in _functions(ast.parse(text)):
            for numbers, partly in _markers(test, f"{file}: {test.name}"):
                for number in numbers:
                    found[number].append(Proof(file, test.name, partly))
    return dict(found)


def _functions(tree: ast.Module) -> Iterator[ast.FunctionDef]:
    return (node for node in ast.walk(tree) if isinstance(node, ast.FunctionDef))


def _markers(test: ast.FunctionDef, where: str) -> Iterator[tuple[list[int], bool]]:
    names = {
        node.attr
        for decorator in test.decorator_list
        for node in ast.walk(decorator)
        if isinstance(node, ast.Attribute)
    }
    for decorator in test.decorator_list:
        if not isinstance(decorator, ast.Call) or not isinstance(decorator.func, ast.Attribute):
            continue
        if decorator.func.attr != "row":
            continue
        numbers = [a.value for a in decorator.args if isinstance(a, ast.Constant)]
        partly = bool(decorator.keywords)
        if not numbers or len(numbers) != len(decorator.args) or not set(numbers) <= set(ROWS):
            raise ValueError(f"{where}: row() takes numbers of rows in the catalogue")
        if "xfail" in names and not partly:
            raise ValueError(f"{where}: what is expected to fail proves nothing")
        yield [int(str(number)) for number in numbers], partly


def faults(rows: Mapping[int, Row], found: Mapping[int, Sequence[Proof]]) -> list[str]:
    """What is wrong with the catalogue itself."""
    wrong = []
    for number, row in rows.items():
        proved = any(not proof.partly for proof in found.get(number, []))
        if row.part not in PARTS:
            wrong.append(f"row {number} is of no part")
        if not proved and not row.why:
            wrong.append(f"row {number} has no test and no reason")
        if number in found and not row.applies:
            wrong.append(f"row {number} does not apply, and has tests")
    return wrong


def page(rows: Mapping[int, Row], found: Mapping[int, Sequence[Proof]]) -> str:
    """The page as Markdown."""
    verdicts = {number: _verdict(row, found.get(number, [])) for number, row in rows.items()}
    counts = {
        word: sum(text.startswith(word) for text in verdicts.values())
        for word in ("survived", "open", "not applicable")
    }
    lines = [_HEAD + ", ".join(f"{count} {word}" for word, count in counts.items()) + "."]
    for part in PARTS:
        lines += ["", f"## {part}", "", "| row | fault | verdict | shown by |"]
        lines += ["| ---: | --- | --- | --- |"]
        lines += [
            f"| {number} | {row.fault} | {verdicts[number]} | {_tests(found.get(number, []))} |"
            for number, row in rows.items()
            if row.part == part
        ]
    return "\n".join(lines) + "\n"


def _verdict(row: Row, found: Sequence[Proof]) -> str:
    if any(not proof.partly for proof in found):
        return "survived"
    return f"{'open' if row.applies else 'not applicable'}: {row.why}"


def _tests(found: Sequence[Proof]) -> str:
    by_file: dict[str, list[str]] = defaultdict(list)
    for proof in found:
        by_file[proof.file].append(proof.test)
    return "; ".join(f"{file}: {', '.join(tests)}" for file, tests in by_file.items())
