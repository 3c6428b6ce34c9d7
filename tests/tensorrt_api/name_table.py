"""The committed tables of names: what a stand-in for TensorRT may offer, for each version.

They hold facts only: names, kinds, whether a property can be set, numbers of enums.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from surface import Class, Surface

FOLDER = Path(__file__).parents[1] / "tensorrt_names"
# What code that builds and runs an engine can meet; all enums come besides.
CLASSES = (
    "Builder Dims EngineInspector IBuilderConfig ICudaEngine IErrorRecorder IExecutionContext "
    "IHostMemory ILayer ILogger INetworkDefinition IOptimizationProfile IOutputAllocator "
    "IProfiler IProgressMonitor IRuntimeConfig ITensor ITimingCache IVersionedInterface Logger "
    "OnnxParser ParserError Runtime"
)


def path_of(version: str) -> Path:
    return FOLDER / f"{version}.json"


def render(surface: Surface) -> str:
    """The table as text, one member to a line, so that a change of version reads well."""
    classes = {
        name: cls
        for name, cls in sorted(surface["classes"].items())
        if name in CLASSES.split() or cls["kind"] == "enum"
    }
    table = {
        "version": surface["version"],
        "classes": {name: facts(cls, classes) for name, cls in classes.items()},
        "functions": sorted(surface["functions"]),
        "aliases": {
            alias: name
            for alias, name in sorted(surface["aliases"].items())
            if name.partition(".")[0] in classes
        },
    }
    return lines(table) + "\n"


def facts(cls: Class, classes: dict[str, Class]) -> dict[str, Any]:
    # Every enum of pybind11 has a name and a value.
    left_out = ("name", "value") if cls["kind"] == "enum" else ()
    public = {
        name: member
        for name, member in sorted(cls["members"].items())
        if not name.startswith("_") and name not in left_out and member["kind"] != "documented"
    }
    return {
        "kind": cls["kind"],
        "bases": [base for base in cls["bases"] if base in classes],
        "members": {
            name: {"kind": member["kind"], "settable": member["settable"]}
            for name, member in public.items()
        },
        "values": cls["values"],
    }


def lines(value: Any, depth: int = 0) -> str:
    """JSON whose innermost objects and lists stand on one line."""
    if not isinstance(value, dict) or not any(isinstance(v, dict) for v in value.values()):
        return json.dumps(value)
    pad = " " * (depth + 1)
    inner = ",\n".join(f"{pad}{json.dumps(k)}: {lines(v, depth + 1)}" for k, v in value.items())
    return "{\n" + inner + "\n" + pad[1:] + "}"
