"""`edgebm inspect FILE --lint`. Loaded by name, as `inspect` itself runs without the host half."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import groupby
from pathlib import Path

import click

from edgebm.cli.arguments import source
from edgebm.cli.output import emit_json
from edgebm.errors import GateFailed
from edgebm.verbs.lint import Lint, lint

_SHOWN = 3
_LIMITS = (
    "Read in the graph alone; what only TensorRT can tell is listed in docs/reference/tensorrt.md."
)


def show(model: Path, against: str, *, as_json: bool) -> int:
    """Print what breaks the rules in the file `model`; the exit code, 3 if there are errors."""
    found = lint(source(str(model)), against)
    if as_json:
        emit_json(found.to_dict())
    else:
        click.echo("\n".join(_lines(found)))
    return GateFailed.exit_code if found.errors else 0


def _lines(found: Lint) -> Iterator[str]:
    runtime, _, version = found.against.partition(":")
    numbers = (_count(len(found.errors), "error"), _count(len(found.warnings), "warning"))
    yield f"{found.model} against {runtime} {version}: {', '.join(numbers)}"
    for rule, group in groupby(found.findings, key=lambda finding: finding.rule):
        each = list(group)
        yield ""
        yield f"{rule.code}  {rule.severity}, {len(each)} x  {rule.what}"
        for finding in each[:_SHOWN]:
            where = f"{finding.op_type} '{finding.node}': " if finding.node else ""
            yield f"       {where}{finding.text}"
        if len(each) > _SHOWN:
            yield f"       ... and {len(each) - _SHOWN} more"
        yield f"     > {rule.do}"
    yield ""
    yield _LIMITS


def _count(number: int, word: str) -> str:
    return f"{number} {word}{'' if number == 1 else 's'}"
