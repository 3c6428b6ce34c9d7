"""A layer alone, at any width: a model of one node with weights of some shape."""

from __future__ import annotations

import math
from collections.abc import Mapping

import numpy as np
import onnx_ir as ir

from edgebm.ir.model import Model
from edgebm.ir.opset import INTERNAL_OPSET
from edgebm.ir.shapes import infer_shapes
from edgebm.ir.traits import RECURRENT, is_transposed

Shape = tuple[int, ...]
_W, _R = 1, 2


def one_layer(node: ir.Node, weights: Mapping[int, Shape], x: Shape) -> Model | None:
    """The layer as a model of its own, with made-up weights: equal forms give equal models.

    Args:
        node: Conv, ConvTranspose, MatMul or Gemm with a constant matrix, LSTM, GRU or RNN.
        weights: shapes of its constant weights by their input index; others are left out.
        x: the shape of its input; its channels follow from the weights.

    Returns:
        None for a layer that is not built this way: groups that are neither one nor depthwise.
    """
    attributes = {a.name: a for a in node.attributes.values()}
    axis, channels = _channels(node, weights)
    groups = node.attributes.get_int("group", 1)
    if node.op_type in {"Conv", "ConvTranspose"} and groups > 1:
        if node.op_type != "Conv" or weights[1][1] != 1:
            return None
        channels = weights[1][0]
        attributes["group"] = ir.AttrInt64("group", channels)
    if node.op_type in RECURRENT:
        attributes["hidden_size"] = ir.AttrInt64("hidden_size", weights[_R][2])
    shape = list(x)
    shape[axis] = channels
    read = ir.val("x", dtype=ir.DataType.FLOAT, shape=ir.Shape(shape))
    made = {index: _filled(f"w{index}", size) for index, size in weights.items()}
    inputs = [read, *(made.get(index) for index in range(1, max(made) + 1))]
    written = ir.val("y", dtype=ir.DataType.FLOAT)
    layer = ir.Node(
        "", node.op_type, inputs, list(attributes.values()), outputs=[written], name="layer"
    )
    graph = ir.Graph(
        [read], [written], nodes=[layer], initializers=list(made.values()),
        opset_imports={"": INTERNAL_OPSET}, name="layer",
    )  # fmt: skip
    model = Model(ir.Model(graph, ir_version=10), source="a layer alone")
    infer_shapes(model)
    return model


def nothing() -> Model:
    """A model that does next to nothing: what remains of its time is that of a call."""
    return Model.parse(
        '<ir_version: 10, opset_import: ["": 20]> nothing (float[1,8] x) => (float[1,8] y) {'
        " y = Relu(x) }"
    )


def _channels(node: ir.Node, weights: Mapping[int, Shape]) -> tuple[int, int]:
    """The axis of the input that a layer sums over, and its size by the weights."""
    w = weights[1]
    if node.op_type == "Conv":
        return 1, w[1]
    if node.op_type == "ConvTranspose":
        return 1, w[0]
    if node.op_type in RECURRENT:
        return 2, w[2]
    return -1, w[1] if is_transposed(node) else w[-2]


def _filled(label: str, shape: Shape) -> ir.Value:
    size = max(1, math.prod(shape[1:]))
    array = np.random.default_rng(0).normal(size=shape, scale=size**-0.5).astype(np.float32)
    return ir.val(label, const_value=ir.tensor(array, name=label))
