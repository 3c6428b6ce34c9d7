"""The fenced blocks of every page that people read, and what their marks ask for.

A block runs unless the line above it is a mark, which no reader sees:

    <!-- snippet: parse; why it cannot run here -->     checked against the program, not run
    <!-- snippet: exit 3; why it ends so -->            runs, and its commands end with this code
    <!-- snippet: run; why it can -->                   in an example's README

READMEs of examples need data sets, and `tests/e2e/test_example_*.py` run what they show: there
blocks are checked only, without a mark.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parents[2]
# Blocks in these languages are run; the others hold output, drawings or nothing that runs.
RUN = frozenset({"sh", "bash", "console", "python", "yaml", "json"})
OUTPUT = frozenset({"", "text"})
_FENCE = re.compile(r"^(?P<indent> *)```(?P<language>[^\s`]*)\s*$")
_MARK = re.compile(r"<!-- snippet: (?P<what>parse|run|exit (?P<code>\d+)); *(?P<why>.*?) *-->")


@dataclass(frozen=True, slots=True)
class Block:
    """`line` is that of the fence, from 1; `fault` is what is wrong with its mark, if anything."""

    page: str
    line: int
    language: str
    text: str
    parse_only: bool = False
    exit_code: int = 0
    fault: str = ""

    @property
    def where(self) -> str:
        return f"{self.page}:{self.line}"

    @property
    def file(self) -> str:
        """The file that the block is to be written to: its first line is a comment naming it."""
        named = re.match(r"# (?P<name>[\w./-]+\.(py|yaml))\n", self.text)
        return named["name"] if named else ""


def pages() -> list[str]:
    """Every page of the site and every README, by its path in the repository."""
    found = [*ROOT.glob("docs/**/*.md"), *ROOT.glob("examples/**/README.md")]
    found += [*ROOT.glob("benchmarks/*.md"), ROOT / "README.md", ROOT / "CONTRIBUTING.md"]
    return sorted(path.relative_to(ROOT).as_posix() for path in found)


def blocks(page: str) -> list[Block]:
    """The fenced blocks of a page, in order.

    Raises:
        ValueError: a block that nothing ends.
    """
    lines = (ROOT / page).read_text(encoding="utf-8").split("\n")
    found, number = [], 0
    while number < len(lines):
        opened = _FENCE.match(lines[number])
        if opened:
            end = _end(lines, number, page)
            indent = len(opened["indent"])
            text = "".join(f"{line[indent:]}\n" for line in lines[number + 1 : end])
            mark = lines[number - 1].strip() if number else ""
            found.append(_block(page, number + 1, opened["language"], text, mark))
            number = end
        number += 1
    return found


def _end(lines: list[str], start: int, page: str) -> int:
    for number in range(start + 1, len(lines)):
        if lines[number].strip() == "```":
            return number
    raise ValueError(f"{page}:{start + 1}: the block has no end")


def _block(page: str, line: int, language: str, text: str, mark: str) -> Block:
    if not mark.startswith("<!--") or "snippet" not in mark:
        return Block(page, line, language, text, parse_only=page.startswith("examples/"))
    known = _MARK.fullmatch(mark)
    if known is None:
        return Block(page, line, language, text, fault=f"no mark that is known: {mark}")
    fault = "" if known["why"] else "the mark gives no reason"
    parse_only, code = known["what"] == "parse", int(known["code"] or 0)
    return Block(page, line, language, text, parse_only, code, fault)


def inline_code(page: str) -> list[tuple[int, str]]:
    """Line and text of each piece of code within a sentence, outside of blocks."""
    lines = (ROOT / page).read_text(encoding="utf-8").split("\n")
    inside = {
        line for b in blocks(page) for line in range(b.line, b.line + b.text.count("\n") + 2)
    }
    kept = [("" if number in inside else line) for number, line in enumerate(lines, 1)]
    text = "\n".join(kept)
    found = re.finditer(r"(?<!`)`(?P<code>[^`]+)`(?!`)", text)
    return [(text.count("\n", 0, m.start()) + 1, " ".join(m["code"].split())) for m in found]
