"""Faults of the protobuf itself, found before anything is built from it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator

import onnx

from edgebm.errors import ModelError, UnsupportedModel

MAX_DEPTH = 8
_LISTED = 20


def check_structure(proto: onnx.ModelProto, label: str) -> None:
    """Refuse a protobuf message that is no graph of nodes.

    Raises:
        ModelError: no graph, two nodes writing one name, a node reading a name nobody writes,
            branches nested deeper than `MAX_DEPTH`; all faults are listed.
        UnsupportedModel: it is of a version of ONNX that is newer than the one installed.
    """
    if not proto.HasField("graph") or not (proto.graph.node or proto.graph.initializer):
        raise ModelError(
            f"{label} is not an ONNX model: it has no graph",
            hint="the file is of another kind, or truncated",
        )
    _check_versions(proto, label)
    faults = list(_graph_faults(proto.graph, frozenset(), 0))
    for function in proto.functions:
        faults += [
            f"function {function.name}: {fault}"
            for fault in _node_faults(function.node, set(function.input), 0)
        ]
    if faults:
        shown = [f"  {fault}" for fault in faults[:_LISTED]]
        if len(faults) > _LISTED:
            shown.append(f"  ... and {len(faults) - _LISTED} more")
        raise ModelError(
            f"{label} is not valid ONNX; {len(faults)} fault(s):\n" + "\n".join(shown),
            hint="export the model again",
            details={"faults": faults},
        )


def _check_versions(proto: onnx.ModelProto, label: str) -> None:
    """What a newer standard means by a known name is not known."""
    opsets = [each.version for each in proto.opset_import if each.domain in ("", "ai.onnx")]
    known = onnx.defs.onnx_opset_version()
    for what, found, newest in (
        ("opset", max(opsets, default=1), known),
        ("IR version", proto.ir_version, int(onnx.IR_VERSION)),
    ):
        if found > newest:
            raise UnsupportedModel(
                f"{label} is of ONNX {what} {found}, onnx {onnx.__version__} knows {newest}",
                hint=f"export the model with opset {known} or older, or update the package onnx",
            )


def _graph_faults(graph: onnx.GraphProto, outer: frozenset[str], depth: int) -> Iterator[str]:
    inputs = [value.name for value in graph.input]
    yield from (f"two inputs are named '{label}'" for label in _twice(inputs))
    weights = [tensor.name for tensor in graph.initializer]
    yield from (f"two weights are named '{label}'" for label in _twice(weights))
    sparse = [tensor.values.name for tensor in graph.sparse_initializer]
    yield from (f"weight '{label}' is stored as a sparse tensor" for label in sparse)
    known = set(outer) | set(inputs) | set(weights) | set(sparse)
    yield from _node_faults(graph.node, known, depth)
    outputs = [value.name for value in graph.output]
    yield from (f"two outputs are named '{label}'" for label in _twice(outputs))
    written = known | {label for node in graph.node for label in node.output}
    for label in outputs:
        if label not in written:
            yield f"nothing computes the output '{label}'"


def _node_faults(nodes: Iterable[onnx.NodeProto], known: set[str], depth: int) -> Iterator[str]:
    if depth > MAX_DEPTH:
        yield f"branches are nested more than {MAX_DEPTH} deep"
        return
    listed = list(nodes)
    written = [label for node in listed for label in node.output if label]
    yield from (f"two nodes write '{label}'" for label in _twice(written))
    everything = known | set(written)
    for node in listed:
        name = node.name or (node.output[0] if node.output else "?")
        for label in node.input:
            if label and label not in everything:
                yield f"{node.op_type} '{name}' reads '{label}', which nothing provides"
        for attribute in node.attribute:
            for branch in (*([attribute.g] if attribute.HasField("g") else []), *attribute.graphs):
                yield from _graph_faults(branch, frozenset(everything), depth + 1)


def _twice(labels: list[str]) -> list[str]:
    return sorted(label for label, count in Counter(labels).items() if count > 1)
