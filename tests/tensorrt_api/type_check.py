"""mypy over the files of the package that import `tensorrt`."""

from __future__ import annotations

import ast
import json
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from commands import CheckFailed, run

MODULE = "tensorrt"


@dataclass(frozen=True, slots=True)
class Finding:
    """One error that the type checker reports."""

    file: Path
    line: int
    code: str
    sentence: str


def product_files(root: Path) -> list[Path]:
    """The package's files that import `tensorrt`, whether at run time or for the checker only.

    Raises:
        CheckFailed: there is none, so that nothing would be checked.
    """
    files = [path for path in sorted((root / "edgebm").rglob("*.py")) if imports_tensorrt(path)]
    if not files:
        raise CheckFailed(
            f"no file below {root / 'edgebm'} says `import {MODULE}`: nothing to check. A module "
            "imported by importlib needs that line below `if TYPE_CHECKING:`."
        )
    return files


def imports_tensorrt(path: Path) -> bool:
    for node in ast.walk(ast.parse(path.read_bytes(), str(path))):
        if isinstance(node, ast.Import) and any(name.name == MODULE for name in node.names):
            return True
        if isinstance(node, ast.ImportFrom) and node.module == MODULE and not node.level:
            return True
    return False


def type_check(files: Sequence[Path], stubs: Path, *, root: Path, cache: Path) -> list[Finding]:
    """The errors in `files` where `tensorrt` is what `stubs` declares.

    Raises:
        CheckFailed: mypy itself cannot do it.
    """
    command = [
        *(sys.executable, "-m", "mypy", "--strict", "--output", "json"),
        *("--follow-imports", "silent", "--config-file", str(root / "pyproject.toml")),
        *("--cache-dir", str(cache), *map(str, files)),
    ]
    # 1: there are errors.
    said = run(
        command,
        f"mypy with {stubs.name}",
        accepted=(0, 1),
        folder=root,
        variables={"MYPYPATH": str(stubs)},
    )
    return [read_error(line, root) for line in said.splitlines() if '"severity": "error"' in line]


def read_error(line: str, root: Path) -> Finding:
    error = json.loads(line)
    file = root / error["file"]
    place = file.relative_to(root) if file.is_relative_to(root) else file
    sentence = f"{place}:{error['line']}: {error['message']} [{error['code']}]"
    return Finding(file, error["line"], error["code"] or "", sentence)
