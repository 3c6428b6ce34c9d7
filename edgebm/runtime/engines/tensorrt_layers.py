"""What an engine of TensorRT really runs, read from its inspector.

The inspector's form is not promised: it differs between versions and kinds of layers. What it
does not say is not guessed.
"""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

# These move data, or run once.
_NOT_LAYERS = re.compile(
    "^(reformat|noop|no-?op|constant|shuffle|reshape|signal|wait|copy|slice|gather|assign)",
    re.IGNORECASE,
)
# As words of the inspector write them: "Int8", "Half", "Row major linear FP16 format", "float32".
_PRECISIONS = (
    ("int8", re.compile(r"\bU?INT8\b", re.IGNORECASE)),
    ("int4", re.compile(r"\bU?INT4\b", re.IGNORECASE)),
    ("fp8", re.compile(r"\bFP8|FLOAT8", re.IGNORECASE)),
    ("bf16", re.compile(r"\bBF16\b|BFLOAT16", re.IGNORECASE)),
    ("f16", re.compile(r"\bFP16\b|\bHALF\b|\bFLOAT16\b", re.IGNORECASE)),
    ("f32", re.compile(r"\bFP32\b|\bFLOAT\b|\bFLOAT32\b", re.IGNORECASE)),
)
_TYPE_KEYS = ("Format/Datatype", "Datatype", "DataType", "Format")
_NODE = re.compile(r"\[ONNX Layer: ([^\]]*)\]")
_FLOATS = frozenset({"f16", "bf16", "f32"})


@dataclass(frozen=True, slots=True)
class Layer:
    """A layer of the engine: its kind, the nodes of the graph in it, and what it computes in.

    `precision` is that of the first tensor that it reads; empty where nobody says.
    """

    name: str
    kind: str
    nodes: tuple[str, ...]
    precision: str


def layers_of(information: str) -> tuple[Layer, ...]:
    """The layers in what the inspector gives as JSON; empty where it says nothing of them."""
    try:
        found = json.loads(information)
    except ValueError:
        return ()
    raw = found.get("Layers", []) if isinstance(found, dict) else []
    return tuple(_layer(each) for each in raw if isinstance(each, Mapping))


def count_layers(layers: Iterable[Layer]) -> dict[str, int]:
    """How many layers run in which precision, without those that move data."""
    counts = Counter(
        layer.precision
        for layer in layers
        if layer.precision and not _NOT_LAYERS.match(layer.kind)
    )
    return dict(sorted(counts.items()))


def in_float(layers: Iterable[Layer], planned: Collection[str]) -> tuple[str, ...]:
    """The nodes among `planned`, meant for int8, that are known to run in float.

    Such a node stands in a layer that computes in float, and in none that does so in int8.
    """
    ran: dict[str, set[str]] = {}
    for layer in layers:
        if layer.precision and not _NOT_LAYERS.match(layer.kind):
            for node in layer.nodes:
                ran.setdefault(node, set()).add(layer.precision)
    return tuple(node for node in planned if (had := ran.get(node)) and had <= _FLOATS)


def _layer(raw: Mapping[str, Any]) -> Layer:
    nodes = tuple(dict.fromkeys(_NODE.findall(str(raw.get("Metadata", "")))))
    inputs = raw.get("Inputs")
    first = inputs[0] if isinstance(inputs, list) and inputs else None
    return Layer(str(raw.get("Name", "")), str(raw.get("LayerType", "")), nodes, _precision(first))


def _precision(tensor: Any) -> str:
    if not isinstance(tensor, Mapping):
        return ""
    text = next((str(tensor[key]) for key in _TYPE_KEYS if key in tensor), "")
    return next((name for name, words in _PRECISIONS if words.search(text)), "")
