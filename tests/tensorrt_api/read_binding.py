"""Run in a child interpreter: import NVIDIA's binding and write down what it offers.

    python read_binding.py UNPACKED_WHEEL LIBRARY... > surface.json

The libraries stand in for NVIDIA's; they are loaded first, so that the loader finds their names
taken when the binding asks for them. Standard library only.
"""

from __future__ import annotations

import ctypes
import importlib
import inspect
import json
import re
import sys
import warnings
from collections.abc import Iterator
from types import ModuleType
from typing import Any

BINDING = "tensorrt_bindings"
# What Python programs use of a class without naming it.
USED_BY_SYNTAX = (
    "__init__ __call__ __getitem__ __len__ __iter__ __enter__ __exit__ __and__ __or__ __int__ "
    "__index__ __invert__ __lshift__ __rlshift__"
)
# Loop variables that the binding's own __init__ leaves behind.
LEFT_OVER = ("attr", "value")
OVERRIDDEN = re.compile(r"\s+def ((?!__)\w+\(self\b.*\)).*:")
SIGNATURE = re.compile(r"(?:\d+\. )?(\w*\(.*\)(?: -> .+)?)")


def main() -> None:
    wheel, *libraries = sys.argv[1:]
    for library in libraries:
        ctypes.CDLL(library, mode=ctypes.RTLD_GLOBAL)
    sys.path.insert(0, wheel)
    # The binding warns that Python's version or its own name is on the way out.
    warnings.simplefilter("ignore")
    json.dump(surface(importlib.import_module(BINDING)), sys.stdout)


def surface(binding: ModuleType) -> dict[str, Any]:
    public = {name: value for name, value in vars(binding).items() if not name.startswith("_")}
    classes: dict[type, str] = {}
    aliases: dict[str, str] = {}
    for name, value in sorted(public.items()):
        if isinstance(value, type) and value.__module__.startswith(BINDING):
            if value in classes:
                aliases[name] = classes[value]
            else:
                for cls, qualified in nested(value, name):
                    classes.setdefault(cls, qualified)
    for name, value in public.items():
        if type(value) in classes and is_enum(type(value)) and name not in LEFT_OVER:
            aliases[name] = f"{classes[type(value)]}.{value.name}"
    return {
        "version": binding.__version__,
        "classes": {name: description(cls, classes) for cls, name in classes.items()},
        "functions": {
            name: signatures(value) for name, value in public.items() if inspect.isroutine(value)
        },
        "aliases": aliases,
    }


def nested(cls: type, name: str) -> Iterator[tuple[type, str]]:
    yield cls, name
    for attribute, value in vars(cls).items():
        if isinstance(value, type) and not attribute.startswith("_"):
            yield from nested(value, f"{name}.{attribute}")


def is_enum(cls: type) -> bool:
    return hasattr(cls, "__members__")


def description(cls: type, classes: dict[type, str]) -> dict[str, Any]:
    members = {
        name: member(value, classes)
        for name, value in vars(cls).items()
        if name in USED_BY_SYNTAX.split() or not name.startswith("_")
    }
    for text in OVERRIDDEN.findall(cls.__doc__ or ""):
        # What a subclass must define is named in the docstring only.
        entry = {"kind": "documented", "settable": False, "signatures": [text]}
        members.setdefault(text.partition("(")[0], entry)
    bases = [classes[base] for base in cls.__bases__ if base in classes]
    if not is_enum(cls):
        return {"kind": "class", "bases": bases, "members": members, "values": {}}
    values = {name: int(value) for name, value in cls.__members__.items()}  # type: ignore[attr-defined]
    members = {name: entry for name, entry in members.items() if name not in values}
    return {"kind": "enum", "bases": bases, "members": members, "values": values}


def member(value: Any, classes: dict[type, str]) -> dict[str, Any]:
    if isinstance(value, property):
        return {
            "kind": "property",
            "settable": value.fset is not None,
            "get": signatures(value.fget),
            "set": signatures(value.fset),
        }
    if isinstance(value, type):
        return {"kind": "nested", "settable": False, "type": classes.get(value, "")}
    if isinstance(value, staticmethod):
        return {
            "kind": "staticmethod",
            "settable": False,
            "signatures": signatures(value.__func__),
        }
    if callable(value):
        return {"kind": "method", "settable": False, "signatures": signatures(value)}
    kind = "static_property" if type(value).__name__ == "pybind11_static_property" else "attribute"
    return {"kind": kind, "settable": False, "type": classes.get(type(value), "")}


def signatures(value: Any) -> list[str]:
    """Those in the docstring that pybind11 makes; those of a Python function from itself."""
    if inspect.isfunction(value):
        return [str(inspect.signature(value))]
    name = getattr(value, "__name__", "") or ""
    lines = (line.strip() for line in (getattr(value, "__doc__", None) or "").splitlines())
    found = [match[1] for line in lines if (match := SIGNATURE.fullmatch(line))]
    # The first line above overloads says nothing.
    kept = [text for text in found if text.startswith(name + "(") and "(*args, **kw" not in text]
    return list(dict.fromkeys(kept))


if __name__ == "__main__":
    main()
