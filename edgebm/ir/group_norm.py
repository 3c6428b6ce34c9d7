"""`GroupNormalization`, which the internal opset does not have."""

from __future__ import annotations

import numpy as np
import onnx_ir as ir

from edgebm.ir.edit import Attribute, add_node
from edgebm.ir.rewrite import constant, float_dtype, put_input, shape_of


def write_out_group_norm(node: ir.Node, *, per_channel: bool) -> None:
    """Write a GroupNormalization as InstanceNormalization over groups, in place.

    ONNX withdrew its first form (opset 18: scale and bias per group) for one with scale and
    bias `per_channel` (opset 21), so the internal opset has neither.
    """
    value, scale, bias = node.inputs
    assert value is not None
    assert scale is not None
    groups = node.attributes.get_int("num_groups", 1)
    shape = shape_of(node, value)
    to_groups = constant(node, np.asarray([0, groups, -1], np.int64))
    epsilon: dict[str, Attribute] = {"epsilon": node.attributes.get_float("epsilon", 1e-5)}
    last = add_node(node, "Reshape", [value, to_groups])
    if per_channel:
        ones, zeros = (constant(node, np.full(groups, x, float_dtype(node))) for x in (1, 0))
        last = add_node(node, "InstanceNormalization", [last, ones, zeros], epsilon)
        keep, rest = (constant(node, np.asarray([x], np.int64)) for x in (0, -1))
        channels = shape_of(node, scale)
        target = add_node(node, "Concat", [keep, channels, rest], {"axis": 0})
        last = add_node(node, "Reshape", [last, target])
        column = constant(node, np.asarray([1], np.int64))
        last = add_node(node, "Mul", [last, add_node(node, "Unsqueeze", [scale, column])])
        last = add_node(node, "Add", [last, add_node(node, "Unsqueeze", [bias, column])])
    else:
        last = add_node(node, "InstanceNormalization", [last, scale, bias], epsilon)
    node.op_type = "Reshape"
    node.attributes.clear()
    node.resize_inputs(2)
    put_input(node, 0, last)
    put_input(node, 1, shape)
