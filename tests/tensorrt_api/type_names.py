"""The types and signatures that pybind11 writes into docstrings, as a type checker reads them."""

from __future__ import annotations

import keyword
import re
from collections.abc import Collection
from dataclasses import dataclass

BUILT_IN = (
    "None _bool int float str bytes object tuple list dict slice Any Buffer Callable Dict "
    "Iterable Iterator List Optional Sequence Set Tuple Union"
)
PREFIX = re.compile(
    r"\b(?:tensorrt_bindings\.tensorrt\.|typing\.|typing_extensions\.|collections\.abc\."
    r"|(?:nvinfer1|nvonnxparser)::(?:v_\d+_\d+::)?)"
)
# One thing under several names, and what the checker has no name for.
OTHER_NAMES = {
    "IParserError": "ParserError",
    "bool": "_bool",
    "buffer": "Buffer",
    "capsule": "Any",
    "CapsuleType": "Any",
    "handle": "Any",
    "function": "Any",
}
# Newer bindings write SupportsInt where older ones write int; both take whole numbers only, and
# hand int and float to methods that are overridden in Python. The binding converts sequences to
# Dims and arrays to Weights.
PARAMETERS = {
    "SupportsInt": "int",
    "SupportsFloat": "float",
    "Dims": "Union[Dims, Sequence[int]]",
    "Weights": "Any",
}
SIGNATURE = re.compile(r"\w*\((.*)\)(?: -> (.*))?")
WORD = re.compile(r"[A-Za-z_][\w.]*")


@dataclass(frozen=True, slots=True)
class Parameter:
    name: str
    type: str
    optional: bool

    def render(self) -> str:
        declared = f"{self.name}: {self.type}" if self.type else self.name
        return declared + (" = ..." if self.optional else "")


@dataclass(frozen=True, slots=True)
class Signature:
    """Without `self`."""

    parameters: tuple[Parameter, ...]
    returns: str


def translate(text: str, classes: Collection[str], *, parameter: bool = False) -> str:
    """The type that `text` names, or `Any` where a part of it has no name here.

    Args:
        text: as pybind11 writes it, C++ names among it.
        classes: the names of the binding's classes.
        parameter: what callers may pass, which is more than what they get.
    """
    text = re.sub(r"\bnumpy\.ndarray(\[[^\]]*\])?", "Any", PREFIX.sub("", text.strip()))
    text = WORD.sub(lambda match: OTHER_NAMES.get(match[0], match[0]), text)
    if parameter:
        text = WORD.sub(lambda match: PARAMETERS.get(match[0], match[0]), text)
    known = all(word in BUILT_IN.split() or word in classes for word in WORD.findall(text))
    return text if text and known and not re.search(r"[^\w\s.,\[\]|]", text) else "Any"


def parse(text: str, classes: Collection[str], *, bound: bool) -> Signature:
    """The signature `name(self: A, b: B = <B.X: 0>) -> C`; `bound` drops its first parameter."""
    match = SIGNATURE.fullmatch(text)
    if match is None:
        raise ValueError(f"not a signature: {text}")
    arguments = split(match[1])[1 if bound else 0 :]
    parameters: list[Parameter] = []
    for argument in arguments:
        before = bool(parameters) and parameters[-1].optional
        parameters.append(read_parameter(argument, classes, after_default=before))
    return Signature(tuple(parameters), translate(match[2] or "Any", classes))


def read_parameter(text: str, classes: Collection[str], *, after_default: bool) -> Parameter:
    declaration, equals, default = text.partition("=")
    name, _, declared = declaration.partition(":")
    name = name.strip()
    if name in ("/", "*"):
        return Parameter(name, "", optional=False)
    if keyword.iskeyword(name):
        name += "_"
    kind = translate(declared, classes, parameter=True)
    if default.strip() == "None" and "None" not in kind and "Optional" not in kind:
        kind = f"Optional[{kind}]"
    return Parameter(name, kind, optional=bool(equals) or after_default)


def split(text: str) -> list[str]:
    """The parts between the commas that stand outside all brackets."""
    parts, depth = [""], 0
    for character in text:
        depth += (character in "([{<") - (character in ")]}>")
        if character == "," and not depth:
            parts.append("")
        else:
            parts[-1] += character
    return [part.strip() for part in parts if part.strip()]
