"""Runs the examples on their real data and draws the table in the README beside this file.

    python examples/table.py --data PATH --out DIR               # every example
    python examples/table.py --data PATH --out DIR medical_ecg   # one row anew
    python examples/table.py                                     # the table from figures.json

A step whose file is in DIR already is left out, so a run that was stopped goes on; `--again` keeps
the trained models and measures anew. The figures are kept in figures.json, with date and machine.
"""

from __future__ import annotations

import argparse
import datetime as dt
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

from rows import Figure
from runs import EXAMPLES, Step

from edgebm.report.read import read_report

HERE = Path(__file__).parent
FIGURES, README = HERE / "figures.json", HERE / "README.md"
BEGIN, END = "<!-- table.py draws from here -->", "<!-- to here -->"


def environment(data: Path, folder: Path) -> dict[str, str]:
    """The caller's, with the data, and the command `edgebm` of this Python on the path."""
    commands = folder / "commands"
    commands.mkdir(parents=True, exist_ok=True)
    command = commands / "edgebm"
    command.write_text(f"#!/bin/sh\nexec '{sys.executable}' -m edgebm \"$@\"\n")
    command.chmod(0o755)
    path = os.pathsep.join((str(commands), str(Path(sys.executable).parent), os.environ["PATH"]))
    return os.environ | {
        "EDGEBM_DATA": str(data),
        "PATH": path,
        "PYTHONPATH": os.pathsep.join((str(HERE.parent), os.environ.get("PYTHONPATH", ""))),
    }


def run(step: Step, folder: Path, places: dict[str, Path], variables: dict[str, str]) -> None:
    """Run a step of the example in `folder`.

    Raises:
        SystemExit: it failed, or its file is not there afterwards.
    """
    program = (folder / step.program).resolve()
    interpreter = "sh" if program.suffix == ".sh" else sys.executable
    command = [interpreter, str(program), *(part.format(**places) for part in step.arguments)]
    print("+", *command, flush=True)
    done = subprocess.run(command, env=variables | step.variables, check=False)
    out = places["out"]
    if done.returncode or not (out / step.makes).exists():
        what = f"ended with {done.returncode}" if done.returncode else f"left no {step.makes}"
        raise SystemExit(f"{program} {what}; what was done until then is kept in {out}")


def figures_of(name: str, data: Path, places: dict[str, Path]) -> dict[str, Any]:
    """Run what is missing of an example, and give its row with date and machine."""
    out = places["out"]
    out.mkdir(parents=True, exist_ok=True)
    example, variables = EXAMPLES[name], environment(data, out.parent)
    for step in example.steps:
        if not (out / step.makes).exists():
            run(step, HERE / name, places, variables)
    report = read_report(out / example.bundle)
    versions = {key: report["created_with"][key] for key in ("openvino", "onnxruntime")}
    return {
        "date": dt.datetime.now(tz=dt.timezone.utc).date().isoformat(),
        "cpu": report["host"]["cpu"],
        "versions": versions,
        **example.read(out),
    }


def number(value: float) -> str:
    """Three or four digits that mean something."""
    digits = 0 if value >= 100 else 2 if value >= 10 else 3 if value >= 0.1 else 4
    return f"{value:.{digits}f}" if value != int(value) else f"{value:.0f}"


def change(figure: Figure) -> str:
    """`top-1 97.51 to 97.50 %`."""
    values = [number(value) for value in (figure["before"], figure["after"]) if value is not None]
    return f"{figure['name']} {' to '.join(values)} {figure['unit']}".rstrip()


def gain(figure: Figure) -> str:
    """`an image 0.75 to 0.26 ms (2.9x)`; what is counted per second is better when higher."""
    before, after = figure["before"], figure["after"]
    if before is None:
        return change(figure)
    ratio = after / before if figure["unit"].endswith("/s") else before / after
    return f"{change(figure)} (**{ratio:.1f}x**)"


def table(figures: dict[str, Any]) -> str:
    """The table in Markdown, rows in the order of `EXAMPLES`."""
    lines = [
        "| example | model | float to compressed | speed | size, MB | runs |",
        "| --- | --- | --- | --- | --- | --- |",
    ]
    for name, example in EXAMPLES.items():
        if name not in figures:
            continue
        row = figures[name]
        sizes = " to ".join(number(size / 1e6) for size in row["size_bytes"])
        cells = (
            f"[{name}]({name}/README.md): {example.title}",
            example.model,
            "; ".join(map(change, row["quality"])),
            "; ".join(map(gain, row["speed"])),
            sizes,
            " to ".join(row["runs"]),
        )
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


def drawn(text: str, figures: dict[str, Any]) -> str:
    """The README with the table of these figures between its two marks."""
    head, begun, rest = text.partition(BEGIN)
    _, ended, tail = rest.partition(END)
    if not begun or not ended:
        raise SystemExit(f"{README} lacks '{BEGIN}' or '{END}': put them where the table belongs")
    return f"{head}{BEGIN}\n\n{table(figures)}\n\n{END}{tail}"


def write(path: Path, text: str) -> None:
    """Replace a file in one go."""
    beside = path.with_suffix(".new")
    beside.write_text(text, encoding="utf-8")
    beside.replace(path)


def options() -> argparse.Namespace:
    """What the command line says."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("names", nargs="*", metavar="EXAMPLE", help=", ".join(EXAMPLES))
    parser.add_argument("--data", type=Path, help="folder of the data sets (or $EDGEBM_DATA)")
    parser.add_argument("--out", type=Path, help="folder for models, bundles and figures")
    parser.add_argument(
        "--weights",
        type=Path,
        help="folder of the encoder that sentence_search and text_classify begin with",
    )
    parser.add_argument(
        "--again", action="store_true", help="keep what was trained, do the rest anew"
    )
    chosen = parser.parse_args()
    unknown = [name for name in chosen.names if name not in EXAMPLES]
    if unknown:
        parser.error(f"no example {', '.join(unknown)}; there are {', '.join(EXAMPLES)}")
    if chosen.data is None and os.environ.get("EDGEBM_DATA"):
        chosen.data = Path(os.environ["EDGEBM_DATA"])
    if chosen.out is None and (chosen.names or chosen.again):
        parser.error("--out DIR is missing: where models and bundles are put")
    if chosen.out is not None and (chosen.data is None or not chosen.data.is_dir()):
        parser.error("--data PATH is missing: the folder of the data sets")
    names = chosen.names or EXAMPLES
    wanted = any("{weights}" in s.arguments for n in names for s in EXAMPLES[n].steps)
    if (
        chosen.out is not None
        and wanted
        and (chosen.weights is None or not chosen.weights.is_dir())
    ):
        parser.error("--weights FOLDER is missing: all-MiniLM-L6-v2, or another such encoder")
    return chosen


def main() -> None:
    """Run, keep the figures, draw the table."""
    chosen = options()
    figures = json.loads(FIGURES.read_text(encoding="utf-8")) if FIGURES.exists() else {}
    if chosen.out is not None:
        for name in chosen.names or EXAMPLES:
            out = (chosen.out / name).resolve()
            for step in EXAMPLES[name].steps[1:] if chosen.again else ():
                if not step.makes.startswith(".."):  # that is of another example
                    (out / step.makes).unlink(missing_ok=True)
            places = {"out": out, "weights": chosen.weights}
            figures[name] = figures_of(name, chosen.data.resolve(), places)
            write(FIGURES, json.dumps(figures, indent=1) + "\n")
    write(README, drawn(README.read_text(encoding="utf-8"), figures))


if __name__ == "__main__":
    main()
