"""A graph with FP16 in it, computed in FP32 with every FP16 value rounded explicitly.

It answers what a GPU answers, but for the order of sums, on a CPU without FP16 kernels. What
happens inside of one node is FP32: products and sums, as on a GPU, but also the steps of a
recurrent node, whose state a GPU may round at each.
"""

from __future__ import annotations

import numpy as np
import onnx
import onnx_ir as ir

from edgebm.backends.half_graph import F16, F32
from edgebm.ir.edit import const, name, replace_const
from edgebm.ir.model import Model
from edgebm.ir.traits import MOVES

# What they give out was FP16 before.
_EXACT = MOVES | {"Relu", "Concat", "Gather", "Identity", "Expand", "Where", "Neg", "Abs", "Max",
                  "Min", "Pad", "Tile", "ReduceMax", "ReduceMin"}  # fmt: skip


def read_model(content: bytes) -> Model:
    """The graph of an ONNX file."""
    return Model(ir.from_proto(onnx.ModelProto.FromString(content)))


def in_f32(half: Model) -> Model:
    """A copy of `half` without FP16, in which its FP16 values are rounded to FP16 numbers."""
    out = half.clone()
    graph = out.graph.graph
    for value in list(graph.initializers.values()):
        array = const(value)
        if array is not None and value.dtype == F16:
            replace_const(value, array.astype(np.float32))
    for node in list(graph):
        _settle(graph, node)
    return out


def _settle(graph: ir.Graph, node: ir.Node) -> None:
    filled = node.attributes.get("value")
    if node.op_type == "ConstantOfShape" and filled is not None:
        array = filled.as_tensor().numpy()
        if array.dtype == np.float16:
            tensor = ir.tensor(array.astype(np.float32))
            node.attributes["value"] = ir.AttrTensor("value", tensor)
    is_cast = node.op_type == "Cast"
    for out in node.outputs:
        if out.dtype != F16:
            continue
        if is_cast:  # it rounds by itself
            _insert_cast(graph, node, out, F32)
            continue
        out.type = ir.TensorType(F32)
        if node.op_type not in _EXACT:
            rounded = _insert_cast(graph, node, out, F16)
            after = rounded.producer()
            assert after is not None
            _insert_cast(graph, after, rounded, F32)


def _insert_cast(graph: ir.Graph, node: ir.Node, value: ir.Value, dtype: ir.DataType) -> ir.Value:
    """Lead every reader of `value` through a new Cast behind `node`; its output.

    No output of the model is FP16, so `value` is none.
    """
    uses = list(value.uses())
    label = f"{name(value)}.{'f16' if dtype == F16 else 'f32'}"
    cast = ir.node("Cast", [value], {"to": int(dtype)}, name=label)
    out = cast.outputs[0]
    out.name, out.type, out.shape = label, ir.TensorType(dtype), value.shape
    graph.insert_after(node, cast)
    for user, index in uses:
        user.replace_input_with(index, out)
    return out
