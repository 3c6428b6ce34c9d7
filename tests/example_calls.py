"""Programs of an example, run as a user runs them, with the edgebm of this tree."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[1]
EXAMPLES = ROOT / "examples"
# Any import of the host half or of torch ends the device program.
WITHOUT_HOST = """
import runpy, sys
for name in ("torch", "onnx", "onnx_ir", "pydantic", "yaml", "rich", "PIL"):
    sys.modules[name] = None
sys.argv = sys.argv[1:]
sys.path.insert(0, sys.argv[0].rpartition("/")[0])
runpy.run_path(sys.argv[0], run_name="__main__")
"""


def call(folder: Path, *command: object, **variables: str) -> subprocess.CompletedProcess[str]:
    """The command; `edgebm_command(folder)` has put `edgebm` on its PATH."""
    environment = os.environ | {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"} | variables
    environment["PATH"] = f"{folder.parent}{os.pathsep}{environment['PATH']}"
    texts = [str(part) for part in command]
    return subprocess.run(texts, env=environment, capture_output=True, text=True, check=False)


def edgebm_command(folder: Path) -> None:
    """Lay a command `edgebm` of this interpreter beside the folder."""
    command = folder.parent / "edgebm"
    command.write_text(f"#!/bin/sh\nexec '{sys.executable}' -m edgebm \"$@\"\n")
    command.chmod(0o755)


def python(folder: Path, *command: object) -> str:
    """What a Python program that ends well prints."""
    done = call(folder, sys.executable, *command)
    assert done.returncode == 0, done.stderr
    return done.stdout


def compress(
    example: Path, folder: Path, gate: str, *options: object
) -> subprocess.CompletedProcess[str]:
    """The example's compress.sh in short, with this value for both gates."""
    short = ("--threads", 1, "--measure-seconds", 1, *options)
    return call(
        folder, "sh", example / "compress.sh", folder, *short, SENSITIVITY=gate, SPECIFICITY=gate
    )


def short_recipe(example: Path, folder: Path) -> Path:
    """The example's recipe, taught for three seconds."""
    text = (example / "recipe.yaml").read_text(encoding="utf-8")
    short = re.sub(r"(?m)^    minutes: .*$", "    minutes: 0.05", text)
    assert short != text
    path = folder / "short.yaml"
    path.write_text(short, encoding="utf-8")
    return path
