"""Check what the package asks of TensorRT against NVIDIA's real Python bindings.

    python tests/tensorrt_api/check.py [--work DIR] [--python PYTHON] [--update]

Needs pip with a package index, a C compiler and mypy; no GPU, no driver, no TensorRT. The binding
wheels of four versions are fetched and imported beside libraries that offer nothing but names;
what they declare becomes one stub package each, and every file of the package that imports
`tensorrt` is type-checked against all of them. Planted errors must be found, too. Prints a row
for each version; the exit code is 1 if anything is wrong.
"""

from __future__ import annotations

import argparse
import difflib
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import name_table
import plants
import stub_package
import surface
from commands import CheckFailed
from type_check import product_files, type_check
from wheels import VERSIONS, fetch, tag_of

ROOT = Path(__file__).parents[2]


@dataclass(frozen=True, slots=True)
class Verdict:
    """What was found at one version: nothing, or sentences."""

    version: str
    names: Sequence[str]
    product: Sequence[str]
    planted: Sequence[str]

    @property
    def sentences(self) -> list[str]:
        return [*self.names, *self.product, *self.planted]


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--work", type=Path, help="keep the wheels and stub packages here")
    parser.add_argument("--python", default=sys.executable, help="imports the bindings")
    parser.add_argument("--update", action="store_true", help="renew tests/tensorrt_names")
    options = parser.parse_args(arguments)
    try:
        with tempfile.TemporaryDirectory() as temporary:
            work = (options.work or Path(temporary)).resolve()
            work.mkdir(parents=True, exist_ok=True)
            verdicts = check(work, options.python, update=options.update)
    except CheckFailed as error:
        print(f"not checked: {error}", file=sys.stderr)
        return 1
    report(verdicts)
    return int(any(verdict.sentences for verdict in verdicts))


def check(work: Path, python: str, *, update: bool) -> list[Verdict]:
    files = product_files(ROOT)
    print("checked:", *(str(file.relative_to(ROOT)) for file in files))
    tag = tag_of(python)
    planted = work / "planted.py"
    planted.write_text(plants.source(), encoding="utf-8")
    verdicts = []
    for version in VERSIONS:
        found = surface.read(fetch(version, tag, work), python, work)
        stubs = work / f"stubs-{version}"
        stub_package.write(found, stubs)
        errors = type_check([*files, planted], stubs, root=ROOT, cache=work / "mypy")
        at_plants = {(error.line, error.code) for error in errors if error.file == planted}
        product = [error.sentence for error in errors if error.file != planted]
        names = compare_table(found, update=update)
        verdicts.append(Verdict(version, names, product, plants.missed(at_plants, version)))
    return verdicts


def compare_table(found: surface.Surface, *, update: bool) -> list[str]:
    """Sentences about a committed table that is not what the binding says."""
    path, table = name_table.path_of(found["version"]), name_table.render(found)
    if update:
        path.parent.mkdir(exist_ok=True)
        path.write_text(table, encoding="utf-8")
    committed = path.read_text(encoding="utf-8") if path.exists() else ""
    changes = [
        line
        for line in difflib.ndiff(committed.splitlines(), table.splitlines())
        if line.startswith(("+", "-"))
    ]
    if not changes:
        return []
    place = path.relative_to(ROOT)
    sentence = f"{place} differs in {len(changes)} lines, --update renews it:"
    return ["\n        ".join((sentence, *changes[:10]))]


def report(verdicts: Sequence[Verdict]) -> None:
    print(f"{'binding':<12}{'name table':<12}{'edgebm':<12}{'planted':<12}")
    for verdict in verdicts:
        cells = (count(verdict.names), count(verdict.product), count(verdict.planted))
        print(f"{verdict.version:<12}" + "".join(f"{cell:<12}" for cell in cells).rstrip())
        for sentence in verdict.sentences:
            print("   ", sentence)


def count(sentences: Sequence[str]) -> str:
    return f"{len(sentences)} errors" if sentences else "ok"


if __name__ == "__main__":
    sys.exit(main())
