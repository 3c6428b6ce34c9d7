"""What the child interpreter writes about a binding, and how it is run."""

from __future__ import annotations

import json
import os
import zipfile
from collections.abc import Sequence
from pathlib import Path
from typing import Literal, TypedDict

from commands import run

HERE = Path(__file__).parent
MISSING = ("nvinfer", "nvinfer_plugin", "nvonnxparser")

Kind = Literal[
    "method", "staticmethod", "property", "static_property", "nested", "attribute", "documented"
]


class Member(TypedDict, total=False):
    """`signatures` of a method, `get` and `set` of a property, `type` of anything else."""

    kind: Kind
    settable: bool
    signatures: list[str]
    get: list[str]
    set: list[str]
    type: str


class Class(TypedDict):
    """`values` are the members of an enum with their numbers."""

    kind: Literal["class", "enum"]
    bases: list[str]
    members: dict[str, Member]
    values: dict[str, int]


class Surface(TypedDict):
    """All that one version of the binding offers. Nested classes are named `Outer.Inner`."""

    version: str
    classes: dict[str, Class]
    functions: dict[str, list[str]]
    aliases: dict[str, str]


def read(wheel: Path, python: str, work: Path) -> Surface:
    """What `wheel` offers when `python`, of the wheel's own version, imports it."""
    unpacked = work / wheel.stem
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(unpacked)
    version = wheel.name.split("-")[1]
    libraries = compile_libraries(version.partition(".")[0], work)
    child = [python, "-I", str(HERE / "read_binding.py"), str(unpacked), *map(str, libraries)]
    surface: Surface = json.loads(run(child, f"importing the binding {version}"))
    return surface


def compile_libraries(major: str, work: Path) -> Sequence[Path]:
    """Stand-ins for NVIDIA's three libraries: nothing but names."""
    folder = work / f"libraries-{major}"
    folder.mkdir(exist_ok=True)
    paths = [folder / f"lib{name}.so.{major}" for name in MISSING]
    for path in paths:
        source = str(HERE / "missing_libraries.c")
        soname = f"-Wl,-soname,{path.name}"
        compiler = os.environ.get("CC", "cc")
        command = [compiler, "-shared", "-fPIC", soname, "-o", str(path), source]
        run(command, "compiling the stand-in libraries")
    return paths
