"""The tables of docs/reference/tensorrt.md that are made from the rules."""

from __future__ import annotations

from pathlib import Path

from edgebm.backends.tensorrt.rule import SOURCES, Rule
from edgebm.backends.tensorrt.rules import RULES

PAGE = Path(__file__).parents[4] / "docs" / "reference" / "tensorrt.md"
_BEGIN, _END = "<!-- made from the rules -->", "<!-- end of what is made -->"


def with_tables(page: str) -> str:
    """The page with its tables as the rules are now; what stands around them is kept.

    Raises:
        ValueError: one of the two marks is missing.
    """
    before, begin, rest = page.partition(_BEGIN)
    _, end, after = rest.partition(_END)
    if not begin or not end:
        raise ValueError("the page has lost the marks around its tables")
    return f"{before}{_BEGIN}\n\n{tables()}\n{_END}{after}"


def tables() -> str:
    """Errors, warnings, what no graph tells, and where the rules were read."""
    errors = [rule for rule in RULES.values() if rule.severity == "error"]
    warnings = [rule for rule in RULES.values() if rule.severity == "warning"]
    lines = ["### Errors: parser or builder refuse", "", *_rules(errors), ""]
    lines += ["### Warnings: it builds, slower or less accurate", "", *_rules(warnings), ""]
    lines += ["### What a graph does not tell", ""]
    lines += [f"- {rule.code}: {rule.unseen}" for rule in RULES.values() if rule.unseen]
    lines += ["", "### Where the rules were read", ""]
    lines += [f"- {key}: {text}" for key, text in SOURCES.items()]
    return "\n".join(lines) + "\n"


def _rules(rules: list[Rule]) -> list[str]:
    head = ["| rule | a good graph | otherwise | TensorRT | read in |", "|---|---|---|---|---|"]
    rows = [f"| {r.code} | {r.what} | {r.do} | {r.versions} | {r.source} |" for r in rules]
    return head + rows
