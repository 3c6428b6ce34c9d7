"""ConstantFill, an experimental operator of torch's exporter for opsets below 9."""

from __future__ import annotations

import onnx_ir as ir

from edgebm.ir.model import Model
from edgebm.ir.rewrite import take

_FLOAT = 1


def write_constant_fill(model: Model) -> None:
    """Turn `ConstantFill` of a computed shape into `ConstantOfShape`, in place.

    It fills the initial states of recurrent layers. Other uses stay, and are refused by name.
    """
    for node in model.graph.graph.all_nodes():
        shape_given = node.attributes.get_int("input_as_shape", 0) == 1
        dtype = node.attributes.get_int("dtype", _FLOAT)
        if node.op_type != "ConstantFill" or not shape_given or len(node.inputs) != 1:
            continue
        if dtype != _FLOAT or node.attributes.get_ints("extra_shape"):
            continue
        number = take(node, "value") or 0.0
        node.op_type = "ConstantOfShape"
        node.attributes.clear()
        fill = ir.tensor([float(number)], dtype=ir.DataType.FLOAT)
        node.attributes["value"] = ir.AttrTensor("value", fill)
