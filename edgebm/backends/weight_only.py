"""Store decided weights as integers behind DequantizeLinear; everything is computed in float.

OpenVINO multiplies from the integers as they are (MatMul) or unpacks them when it compiles
(the rest); by its own choice it also rounds what they are multiplied with to 8 bits, which is
a candidate of its own here and never a side effect. ONNX Runtime unpacks them when it loads, if
it is told not to look for Q/DQ patterns, or multiplies from blocks with an operator of its own
(`onnxruntime_blocks.py`).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import onnx_ir as ir

from edgebm.backends.dialects import OPENVINO_CPU
from edgebm.backends.placement import NOT_QUANTIZED, Ignored
from edgebm.backends.qdq import lower
from edgebm.ir.annotate import has_ranges, quant_of, shift_of
from edgebm.ir.bias import subtract_from_bias
from edgebm.ir.edit import Attribute, add_const, add_node, const, name, remove_dead
from edgebm.ir.model import Model
from edgebm.ir.traits import MATMULS, RECURRENT, weight_index
from edgebm.quant.params import QuantParams, quantize

_IGNORED = "it is on the ignored list"
_OPSET = 21  # the first with blocks and with four bits
_STORED = {
    (4, False): ir.DataType.UINT4,
    (4, True): ir.DataType.INT4,
    (8, False): ir.DataType.UINT8,
    (8, True): ir.DataType.INT8,
}


@dataclass(frozen=True, slots=True)
class Stored:
    """A graph with integer weights. `bits` has those of each node that reads one, by its name;
    `reasons` says of each other node that could have had one why it has none.
    """

    model: Model
    bits: Mapping[str, int]
    reasons: Mapping[str, str]


def store_weights(model: Model, ignored: Ignored) -> Stored:
    """Write the decisions on the weights of `model` as integers in a copy.

    Args:
        model: annotated, with no range on any activation.
        ignored: `(node name, op type) -> bool`, true for nodes the user wants in float.
    """
    assert not has_ranges(model)  # those would ask for integer kernels
    tables = [n for n in model.nodes("Gather") if weight_index(n) == 0 and quant_of(n.inputs[0])]
    bits = {n.name or "?": 8 for n in tables if not ignored(n.name or "", n.op_type)}
    reasons = {n.name or "?": _IGNORED for n in tables if ignored(n.name or "", n.op_type)}
    out, _ = lower(model, OPENVINO_CPU, ignored)  # without ranges: embedding tables only
    floats: dict[ir.Value, ir.Value] = {}
    for node in list(out.nodes(*MATMULS, *RECURRENT)):
        label = node.name or "?"
        if ignored(node.name or "", node.op_type):
            reasons[label] = _IGNORED
            continue
        for index in (1, 2) if node.op_type in RECURRENT else (1,):
            value = node.inputs[index]
            params = quant_of(value)
            if value is None or params is None:
                continue
            if value not in floats:
                floats[value] = _dequantized(node, value, params)
            node.replace_input_with(index, floats[value])
            bits[label] = stored_bits(node, params)
        if label in bits and (shift := shift_of(node.outputs[0])) is not None:
            subtract_from_bias(node, shift)
        if label not in bits:
            weightless = const(node.inputs[1]) is None
            reasons[label] = "it has no weight" if weightless else NOT_QUANTIZED
    if bits:
        out.graph.opset_imports[""] = max(_OPSET, out.graph.opset_imports.get("", 0))
    remove_dead(out.graph.graph)
    return Stored(out, bits, reasons)


def stored_bits(node: ir.Node, params: QuantParams) -> int:
    """Bits that each number of the weight takes in the file."""
    return 4 if params.bits <= 4 and node.op_type in ("MatMul", "Gemm") else 8


def _dequantized(before: ir.Node, value: ir.Value, params: QuantParams) -> ir.Value:
    """The weight as float again, from integers, in front of the first node that reads it."""
    graph, label, array = before.graph, name(value), const(value)
    assert isinstance(graph, ir.Graph)
    assert array is not None
    dtype = _STORED[stored_bits(before, params), params.signed].numpy()
    args = [
        add_const(graph, f"{label}.q", quantize(array, params).astype(dtype)),
        add_const(graph, f"{label}.scale", params.scale),
    ]
    if np.any(params.zero_point) or not params.signed:
        args.append(add_const(graph, f"{label}.zero_point", params.zero_point.astype(dtype)))
    attributes: dict[str, Attribute] = {} if params.axis is None else {"axis": params.axis}
    if params.block_size is not None:
        attributes["block_size"] = params.block_size
    result = add_node(before, "DequantizeLinear", args, attributes, label=f"{label}.dq")
    result.type, result.shape = value.type, value.shape
    return result
