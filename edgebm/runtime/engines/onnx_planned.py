"""Which nodes of an ONNX artifact are meant to compute in int8, told without a parser of ONNX."""

from __future__ import annotations

from edgebm.runtime.engines.onnx_faults import Malformed, fields

# Fields by their numbers in onnx.proto.
_GRAPH, _NODE = 7, 1
_INPUT, _OUTPUT, _NAME, _OP_TYPE = 1, 2, 3, 4
_PRODUCTS = {"Conv", "ConvTranspose", "Gemm", "MatMul"}
_UNPACKS = "DequantizeLinear"


def planned_int8(model: bytes) -> tuple[str, ...]:
    """The products in the ONNX file `model` that read two dequantized operands, by name.

    Nodes of the main graph, in its order; nameless ones cannot be told apart and are left out.
    """
    try:
        nodes = _nodes(model)
    except (Malformed, UnicodeDecodeError):
        return ()
    made = {name for _, kind, _, outputs in nodes if kind == _UNPACKS for name in outputs}
    return tuple(
        name
        for name, kind, inputs, _ in nodes
        if name and kind in _PRODUCTS and len(inputs) > 1 and made.issuperset(inputs[:2])
    )


def _nodes(model: bytes) -> list[tuple[str, str, list[str], list[str]]]:
    """Name, operator, inputs and outputs of each node."""
    found = []
    for number, graph, size in fields(model, 0, len(model)):
        if number != _GRAPH:
            continue
        for inner, node, count in fields(model, graph, graph + size):
            if inner != _NODE:
                continue
            texts: dict[int, list[str]] = {_INPUT: [], _OUTPUT: [], _NAME: [""], _OP_TYPE: [""]}
            for field, at, length in fields(model, node, node + count):
                if field in texts:
                    texts[field].append(model[at : at + length].decode())
            found.append((texts[_NAME][-1], texts[_OP_TYPE][-1], texts[_INPUT], texts[_OUTPUT]))
    return found
