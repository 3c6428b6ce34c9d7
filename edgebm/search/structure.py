"""What decides how fast an artifact is: its graph, without the weights."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator

import onnx_ir as ir

from edgebm.search.candidates import Artifact


def structure_sha256(artifact: Artifact) -> str:
    """Equal for artifacts of one kind with the same nodes, values, shapes and dtypes.

    Weights may differ: training that ends by the clock never gives the same ones twice, and no
    kernel here takes longer for other numbers. Integers that are no weights (axes, sizes) count.
    """
    total = hashlib.sha256(f"{artifact.runtime} {artifact.kind}".encode())
    for line in _graph(artifact.lowered.graph.graph):
        total.update(f"\n{line}".encode())
    return total.hexdigest()


def _graph(graph: ir.Graph) -> Iterator[str]:
    yield f"inputs {[_value(value) for value in graph.inputs]}"
    yield f"outputs {[_value(value) for value in graph.outputs]}"
    for name, value in sorted(graph.initializers.items()):
        yield f"{name} {_tensor(value.const_value)}"
    for node in graph:
        names = [[value and value.name for value in side] for side in (node.inputs, node.outputs)]
        yield f"{node.domain} {node.op_type} {node.overload} {names}"
        for name, attribute in sorted(node.attributes.items()):
            yield f" {name} {_attribute(attribute)}"


def _attribute(attribute: ir.Attr) -> str:
    """Canonical graphs have no branches, so that no attribute holds a graph."""
    if attribute.type == ir.AttributeType.TENSOR:
        return _tensor(attribute.as_tensor())
    return str(attribute.value)


def _value(value: ir.Value) -> str:
    return f"{value.name} {value.dtype} {value.shape}"


def _tensor(tensor: ir.TensorProtocol | None) -> str:
    if tensor is None:
        return "nothing"
    held = tensor.tobytes().hex() if tensor.dtype == ir.DataType.INT64 else ""
    return f"{tensor.dtype} {list(tensor.shape)} {held}"
