"""Constants that a layer could have had in its own weights, put there.

TensorFlow's converters write BatchNormalization as a product and a sum, biases as sums, and turn
pictures back to channels-last before they flatten them.
"""

from __future__ import annotations

import math

import numpy as np
import onnx_ir as ir

from edgebm.ir.edit import Array, bypass, const, input_at, set_const, sole_user, why_not_bypass
from edgebm.ir.layout_region import perm_of
from edgebm.ir.model import Model
from edgebm.ir.rescale import scale_channels
from edgebm.ir.rewrite import rank

_CONVOLUTIONS = ("Conv", "ConvTranspose")
_AFTER = ("Add", "Sub", "Mul", "Div")


def absorb_constants(model: Model) -> int:
    """Put constants behind and transposes before layers into their weights, in place.

    - one factor or summand for each output channel behind a convolution of constant weights
    - Transpose and Reshape to a matrix in front of a MatMul: its rows change places

    Returns how many nodes went. The function is the same up to float rounding.
    """
    changed = 0
    for node in list(model.nodes(*_CONVOLUTIONS)):
        while _takes_next(node):
            changed += 1
    for node in list(model.nodes("Transpose")):
        changed += _turned_rows(node)
    return changed


def _takes_next(layer: ir.Node) -> bool:
    """Take the product or sum behind a convolution into its weights and bias."""
    out, weight = layer.outputs[0], const(layer.inputs[1])
    after = sole_user(out)
    if after is None or weight is None or after.op_type not in _AFTER:
        return False
    if after.graph is not layer.graph or weight.dtype != np.float32:
        return False
    groups, dims = layer.attributes.get_int("group", 1), weight.ndim
    axis = 0 if layer.op_type == "Conv" else 1
    channels = weight.shape[axis] * (groups if axis else 1)
    row = _per_channel(after, out, channels, dims)
    given = input_at(layer, 2)
    bias = np.zeros(channels, np.float32) if given is None else const(given)
    if row is None or bias is None or why_not_bypass(after, out):
        return False
    if after.op_type in ("Mul", "Div"):
        if (axis and groups > 1) or not np.isfinite(row).all():
            return False
        set_const(layer, 1, scale_channels(weight, row, axis), suffix="scaled")
        bias = bias * row
    else:
        bias = bias + row
    if given is not None or bias.any():
        set_const(layer, 2, bias.astype(weight.dtype), suffix="bias")
    bypass(after, out)
    return True


def _per_channel(after: ir.Node, value: ir.Value, channels: int, dims: int) -> Array | None:
    """The constant factor or summand as one number for each channel (axis 1), if it is that."""
    first = after.inputs[0] is value
    if not first and after.op_type in ("Sub", "Div"):
        return None
    other = after.inputs[1 if first else 0]
    array = const(other)
    if array is None or array.dtype != np.float32 or array.ndim > dims:
        return None
    full = array.reshape((1,) * (dims - array.ndim) + array.shape)
    if full.size not in (1, channels) or full.size != full.shape[1]:
        return None
    row = np.broadcast_to(full.reshape(-1), (channels,)).astype(np.float64)
    if after.op_type == "Div":
        with np.errstate(divide="ignore"):
            return np.asarray(1.0 / row)
    return -row if after.op_type == "Sub" else row


def _turned_rows(turn: ir.Node) -> bool:
    """Flatten before the transpose, and let the matrix behind it have its rows in that order."""
    flat, source = sole_user(turn.outputs[0]), turn.inputs[0]
    product = None if flat is None else sole_user(flat.outputs[0])
    perm = perm_of(turn)
    if flat is None or product is None or perm is None or source is None or source.shape is None:
        return False
    matrix = const(product.inputs[1]) if len(product.inputs) > 1 else None
    sizes = list(source.shape)[1:]
    if flat.op_type not in ("Reshape", "Flatten") or product.inputs[0] is not flat.outputs[0]:
        return False
    if not _is_matrix_product(product) or matrix is None or matrix.ndim != 2 or perm[0] != 0:
        return False
    if any(not isinstance(size, int) for size in sizes):
        return False
    inner = [int(size) for size in sizes if isinstance(size, int)]
    transposed = product.attributes.get_int("transB", 0) == 1
    rows = matrix.T if transposed else matrix
    if not _keeps_samples(flat, source, math.prod(inner)) or rows.shape[0] != math.prod(inner):
        return False
    order = [axis - 1 for axis in perm[1:]]
    places = np.arange(rows.shape[0]).reshape([inner[axis] for axis in order])
    rows = rows[places.transpose(np.argsort(order)).reshape(-1)]
    set_const(product, 1, np.ascontiguousarray(rows.T if transposed else rows), suffix="turned")
    flat.replace_input_with(0, source)
    return True


def _is_matrix_product(node: ir.Node) -> bool:
    if node.op_type == "Gemm":
        return node.attributes.get_int("transA", 0) == 0
    return node.op_type == "MatMul"


def _keeps_samples(flat: ir.Node, source: ir.Value, size: int) -> bool:
    """Whether the node makes [N, a, b, ...] into [N, size]."""
    if rank(source) is None or rank(flat.outputs[0]) != 2 or size == 0:
        return False
    if flat.op_type == "Flatten":
        return flat.attributes.get_int("axis", 1) == 1
    target = const(input_at(flat, 1))
    assert source.shape is not None
    if target is None or target.shape != (2,):
        return False
    first, second = (int(number) for number in target)
    batch = source.shape[0]
    # [-1, size] has as many rows as samples, and so has [0, -1] and [N, anything].
    return second == size or (second == -1 and first in (0, batch))
