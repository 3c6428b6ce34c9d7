"""A stub package `tensorrt` that declares what one version of the binding offers."""

from __future__ import annotations

import keyword
from collections.abc import Iterator, Sequence
from pathlib import Path

from surface import Class, Member, Surface
from type_names import Parameter, Signature, parse

# What NVIDIA's own classes do to one another's signatures is not this check's affair.
HEADER = """\
# mypy: ignore-errors
from builtins import bool as _bool  # the package has a `bool` of its own
from typing import (
    Any, Callable, ClassVar, Dict, Iterable, Iterator, List, Optional, Sequence, Set, Tuple, Union,
    overload,
)
from typing_extensions import Buffer, Self

__version__: str
"""
INDENT = "    "
ANYTHING = Signature(
    (Parameter("*args", "Any", optional=False), Parameter("**kwargs", "Any", optional=False)),
    "Any",
)
# Documented or known to answer None when they fail; the signatures do not say so.
MAY_BE_NONE = frozenset(
    {
        "Builder.build_serialized_network",
        "IBuilderConfig.get_timing_cache",
        "ICudaEngine.create_execution_context",
        "IExecutionContext.get_output_allocator",
        "Runtime.deserialize_cuda_engine",
    }
)
# What Python's syntax does with a class and pybind11 does not list as a method.
PROTOCOLS = {
    "Dims": "def __iter__(self) -> Iterator[int]: ...",
    "IHostMemory": "def __buffer__(self, flags: int) -> memoryview: ...",
}


def write(surface: Surface, folder: Path) -> None:
    """Write `folder/tensorrt`, to be found by way of MYPYPATH."""
    package = folder / "tensorrt"
    package.mkdir(parents=True, exist_ok=True)
    package.joinpath("__init__.pyi").write_text(render(surface), encoding="utf-8")
    package.joinpath("py.typed").touch()


def render(surface: Surface) -> str:
    lines = [HEADER]
    for name in surface["classes"]:
        if "." not in name:
            lines += class_lines(name, surface)
    for name, texts in surface["functions"].items():
        signatures = [parse(text, surface["classes"], bound=False) for text in texts]
        lines += overloads(name, signatures, kind="function")
    for alias, target in surface["aliases"].items():
        owner = target.rpartition(".")[0]
        lines.append(f"{alias}: {owner}" if owner else f"{alias} = {target}")
    return "\n".join(lines) + "\n"


def class_lines(name: str, surface: Surface) -> Iterator[str]:
    cls = surface["classes"][name]
    bases = f"({', '.join(cls['bases'])})" if cls["bases"] else ""
    yield f"class {name.rpartition('.')[2]}{bases}:"
    for inner in surface["classes"]:
        if inner.rpartition(".")[0] == name:
            yield from (INDENT + line for line in class_lines(inner, surface))
    yield from (INDENT + line for line in body(name, cls, surface))


def body(name: str, cls: Class, surface: Surface) -> Iterator[str]:
    if cls["kind"] == "enum":
        yield f"__members__: ClassVar[Dict[str, {name}]]"
    for value in cls["values"]:
        if not keyword.iskeyword(value):
            yield f"{value}: ClassVar[{name}]"
    for attribute, member in cls["members"].items():
        if not keyword.iskeyword(attribute):
            yield from member_lines(name, attribute, member, surface)
    yield PROTOCOLS.get(name, "...")


def member_lines(owner: str, name: str, member: Member, surface: Surface) -> Iterator[str]:
    classes = surface["classes"]
    kind = member["kind"]
    if kind == "property":
        yield from property_lines(name, member, surface)
    elif kind == "nested":
        if member["type"] != f"{owner}.{name}":
            yield f"{name} = {member['type']}"
    elif kind in ("attribute", "static_property"):
        yield f"{name}: ClassVar[{member['type'] or 'Any'}]"
    elif name == "__enter__":
        yield "def __enter__(self) -> Self: ..."
    else:
        kind = "staticmethod" if kind == "staticmethod" else "method"
        bound = kind == "method"
        signatures = [parse(text, classes, bound=bound) for text in member["signatures"]]
        if f"{owner}.{name}" in MAY_BE_NONE:
            signatures = [Signature(s.parameters, f"Optional[{s.returns}]") for s in signatures]
        yield from overloads(name, signatures, kind=kind)


def property_lines(name: str, member: Member, surface: Surface) -> Iterator[str]:
    classes = surface["classes"]
    got = parse(member["get"][0], classes, bound=True).returns if member["get"] else "Any"
    yield "@property"
    yield f"def {name}(self) -> {got}: ..."
    if member["settable"]:
        setters = [parse(text, classes, bound=True) for text in member["set"]]
        taken = setters[0].parameters[0].type if setters else "Any"
        # pybind11 takes None for a pointer to a class.
        taken = f"Optional[{taken}]" if got in classes or taken in classes else taken
        yield f"@{name}.setter"
        yield f"def {name}(self, value: {taken}) -> None: ..."


def overloads(name: str, signatures: Sequence[Signature], *, kind: str) -> Iterator[str]:
    """One definition for each signature; one that takes anything where none is known."""
    distinct = list(dict.fromkeys(signatures)) or [ANYTHING]
    for signature in distinct:
        if len(distinct) > 1:
            yield "@overload"
        if kind == "staticmethod":
            yield "@staticmethod"
        parameters = ["self"] if kind == "method" else []
        parameters += [parameter.render() for parameter in signature.parameters]
        returns = "None" if name == "__init__" else signature.returns
        yield f"def {name}({', '.join(parameters)}) -> {returns}: ..."
