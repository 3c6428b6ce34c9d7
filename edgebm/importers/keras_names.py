"""Names that a converter made up, replaced by what the user knows."""

from __future__ import annotations

from collections.abc import Sequence

import onnx_ir as ir

from edgebm.ir.edit import free_name
from edgebm.ir.model import Model

BATCH = "batch"


def settle_names(model: Model, names: tuple[Sequence[str], Sequence[str]]) -> None:
    """Name inputs and outputs as the user knows them, and free axes, in place.

    A value without a name in `names` becomes `input`, `output`, or `input_0` and on where there
    are several. Free axes of inputs are `batch` (the first, for all) and `NAME_axis_1`: converters
    number them (`unk__43`), shape inference numbers its own the same way, and two sizes must not
    get one name by chance. Axes of inner values are left to the inference.
    """
    graph = model.graph.graph
    inner = [value for node in graph for value in node.outputs if not value.is_graph_output()]
    for kind, values, given in zip(
        ("input", "output"), (graph.inputs, graph.outputs), names, strict=True
    ):
        labels = _labels(kind, len(values), given)
        for value in inner:  # an inner value of that name gives way
            if value.name in labels:
                value.name = free_name(graph, f"{value.name}_inner")
        for value in values:
            value.name = None
        for value, label in zip(values, labels, strict=True):
            value.name = label
    for value in graph.inputs:
        _set_dims(value, named=True)
    for value in inner + list(graph.outputs):
        _set_dims(value, named=False)


def _labels(kind: str, count: int, given: Sequence[str]) -> list[str]:
    made = [kind] if count == 1 else [f"{kind}_{index}" for index in range(count)]
    if len(given) != count or len(set(given)) != len(given) - max(0, given.count("") - 1):
        return made
    labels = [label or other for label, other in zip(given, made, strict=True)]
    return labels if len(set(labels)) == count else made


def _set_dims(value: ir.Value, *, named: bool) -> None:
    if value.shape is None:
        return
    word = "".join(letter if letter.isalnum() else "_" for letter in value.name or "input")
    dims: list[int | str | None] = []
    for axis, dim in enumerate(value.shape):
        free = (BATCH if axis == 0 else f"{word}_axis_{axis}") if named else None
        dims.append(dim if isinstance(dim, int) else free)
    value.shape = ir.Shape(dims)
