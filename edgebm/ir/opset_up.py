"""What changed in meaning between opset 6 and 20, one adapter per operator and version.

`UP[(op_type, version)]` turns a node of the version before into one of that version. New
versions that are not listed only allowed more dtypes, or added an attribute whose default is
the old behaviour (compared over the whole history in `onnx.defs`).
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import onnx_ir as ir

from edgebm.ir.edit import add_node, input_at
from edgebm.ir.opset_resize import resize_11, resize_13, upsample_9, upsample_10
from edgebm.ir.rewrite import (
    CannotConvert,
    attribute_to_input,
    constant,
    float_dtype,
    put,
    put_input,
    rank,
    shape_of,
    swap_output,
    take,
)

Adapter = Callable[[ir.Node], None]


def _is_used(value: ir.Value) -> bool:
    return bool(tuple(value.uses())) or value.is_graph_output()


def _batchnorm_9(node: ir.Node) -> None:
    if take(node, "spatial") == 0:
        raise CannotConvert("it normalizes each position by itself (spatial=0)")


def _batchnorm_14(node: ir.Node) -> None:
    """Extra outputs asked for training mode before opset 14; unread, they are a leftover."""
    if any(_is_used(out) for out in node.outputs[1:]):
        raise CannotConvert("it is in training mode (its running statistics are read)")
    node.resize_outputs(1)


def _dropout_12(node: ir.Node) -> None:
    ratio = take(node, "ratio")
    if ratio is not None:
        put_input(node, 1, constant(node, np.asarray(ratio, np.float32)))


def _dropout_10(node: ir.Node) -> None:
    if len(node.outputs) > 1 and _is_used(node.outputs[1]):
        raise CannotConvert("its mask is read, and the mask's dtype changed in opset 10")


def _clip_11(node: ir.Node) -> None:
    for index, bound in ((1, "min"), (2, "max")):
        found = take(node, bound)
        if found is not None:
            put_input(node, index, constant(node, np.asarray(found, float_dtype(node))))


def _pad_11(node: ir.Node) -> None:
    attribute_to_input(node, "pads", 1)
    value = take(node, "value")
    if value is not None:
        put_input(node, 2, constant(node, np.asarray(value, float_dtype(node))))


def _slice_10(node: ir.Node) -> None:
    for index, attribute in enumerate(("starts", "ends", "axes"), start=1):
        attribute_to_input(node, attribute, index)


def _topk_10(node: ir.Node) -> None:
    attribute_to_input(node, "k", 1)


def _axes_1(node: ir.Node) -> None:
    attribute_to_input(node, "axes", 1)


def _split_13(node: ir.Node) -> None:
    attribute_to_input(node, "split", 1)


def _split_18(node: ir.Node) -> None:
    if input_at(node, 1) is None:
        put(node, "num_outputs", len(node.outputs))


def _scatter_11(node: ir.Node) -> None:
    node.op_type = "ScatterElements"


def _softmax_13(node: ir.Node) -> None:
    """Before opset 13 the axes from `axis` on were flattened into one."""
    value = node.inputs[0]
    axis = node.attributes.get_int("axis", 1)
    dims = rank(value)
    if axis < 0 and dims is not None:
        axis += dims
    long_axis = _only_long_axis(value, axis)
    if long_axis is not None:
        put(node, "axis", long_axis)
        return
    assert value is not None
    flat = add_node(node, "Flatten", [value], {"axis": axis})
    shape = shape_of(node, value)
    put_input(node, 0, flat)
    put(node, "axis", -1)
    swap_output(node, "Reshape", [shape])


def _only_long_axis(value: ir.Value | None, axis: int) -> int | None:
    """The one axis from `axis` on that is not of size 1, if that is known."""
    if value is None or value.shape is None or axis < 0:
        return None
    long = [i for i in range(axis, len(value.shape)) if value.shape[i] != 1]
    if len(long) > 1:
        return None
    return long[0] if long else len(value.shape) - 1


def _roialign_16(node: ir.Node) -> None:
    if "coordinate_transformation_mode" not in node.attributes:
        put(node, "coordinate_transformation_mode", "output_half_pixel")


def _gridsample_20(node: ir.Node) -> None:
    mode = node.attributes.get_string("mode", "bilinear")
    put(node, "mode", {"bilinear": "linear", "bicubic": "cubic"}.get(str(mode), str(mode)))


def _dft_20(node: ir.Node) -> None:
    axis = take(node, "axis")
    put_input(node, 2, constant(node, np.asarray(1 if axis is None else axis, np.int64)))


def _broadcast_7(node: ir.Node) -> None:
    """Opset 6 broadcast only when told to, from a given axis on."""
    told, axis = take(node, "broadcast"), take(node, "axis")
    small = input_at(node, 1)
    dims, own = rank(input_at(node, 0)), rank(small)
    if not told or axis is None or small is None:
        return
    if dims is None or own is None:
        raise CannotConvert("it broadcasts from an axis of a tensor of unknown rank")
    behind = dims - (axis % dims) - own
    if behind > 0:
        axes = constant(node, np.arange(own, own + behind, dtype=np.int64))
        put_input(node, 1, add_node(node, "Unsqueeze", [small, axes]))


def _prelu_7(node: ir.Node) -> None:
    """Opset 6 had one slope, or one for each channel (axis 1) whatever the rank."""
    slope, dims = input_at(node, 1), rank(input_at(node, 0))
    if slope is None or rank(slope) != 1 or dims == 2:
        return
    if dims is None:
        raise CannotConvert("its input has an unknown rank")
    if slope.shape is not None and slope.shape[0] != 1:
        axes = constant(node, np.arange(1, dims - 1, dtype=np.int64))
        put_input(node, 1, add_node(node, "Unsqueeze", [slope, axes]))


def _batchnorm_7(node: ir.Node) -> None:
    if not take(node, "is_test"):
        raise CannotConvert("it is in training mode (is_test=0)")


def _dropout_7(node: ir.Node) -> None:
    if not take(node, "is_test"):
        raise CannotConvert("it is in training mode (is_test=0)")


def _gemm_7(node: ir.Node) -> None:
    take(node, "broadcast")


_BINARY_7 = (
    "Add",
    "And",
    "Div",
    "Equal",
    "Greater",
    "Less",
    "Mul",
    "Or",
    "Pow",
    "Sub",
    "Xor",
)
_REDUCTIONS_18 = (
    "ReduceL1", "ReduceL2", "ReduceLogSum", "ReduceLogSumExp", "ReduceMax", "ReduceMean",
    "ReduceMin", "ReduceProd", "ReduceSumSquare",
)  # fmt: skip

UP: dict[tuple[str, int], Adapter] = {
    ("BatchNormalization", 9): _batchnorm_9,
    ("BatchNormalization", 14): _batchnorm_14,
    ("Clip", 11): _clip_11,
    ("DFT", 20): _dft_20,
    ("Dropout", 10): _dropout_10,
    ("Dropout", 12): _dropout_12,
    ("GridSample", 20): _gridsample_20,
    ("Hardmax", 13): _softmax_13,
    ("LogSoftmax", 13): _softmax_13,
    ("Pad", 11): _pad_11,
    ("ReduceSum", 13): _axes_1,
    ("Resize", 11): resize_11,
    ("Resize", 13): resize_13,
    ("RoiAlign", 16): _roialign_16,
    ("Scatter", 11): _scatter_11,
    ("Slice", 10): _slice_10,
    ("Softmax", 13): _softmax_13,
    ("Split", 13): _split_13,
    ("Split", 18): _split_18,
    ("Squeeze", 13): _axes_1,
    ("TopK", 10): _topk_10,
    ("Unsqueeze", 13): _axes_1,
    ("Upsample", 9): upsample_9,
    ("Upsample", 10): upsample_10,
    ("BatchNormalization", 7): _batchnorm_7,
    ("Dropout", 7): _dropout_7,
    ("Gemm", 7): _gemm_7,
    ("PRelu", 7): _prelu_7,
    **{(op_type, 7): _broadcast_7 for op_type in _BINARY_7},
    **{(op_type, 18): _axes_1 for op_type in _REDUCTIONS_18},
}
