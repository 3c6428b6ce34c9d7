"""Divide the channels of a group by positive factors: only constants change, not the function."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray

from edgebm.ir.annotate import ChannelMoments, moments_of, set_moments
from edgebm.ir.channels import ChannelGroup, Reader
from edgebm.ir.edit import const, input_at, set_const
from edgebm.ir.traits import channel_axis, is_transposed

F64 = NDArray[np.float64]
_SUFFIX = "equalized"


def scale_channels(weight: NDArray[Any], gain: NDArray[Any], axis: int) -> NDArray[Any]:
    """Multiply slice c of `weight` along `axis` by `gain[c]`; same shape and dtype."""
    shape = [1] * weight.ndim
    shape[axis] = -1
    return np.asarray(weight * gain.reshape(shape), weight.dtype)


def divide(group: ChannelGroup, factor: F64) -> None:
    """Divide channel c of every value of `group` by `factor[c]`.

    Args:
        group: without an obstacle.
        factor: positive, shape [group.channels].
    """
    inverse = 1.0 / factor
    for node in group.writers:
        _write(node, inverse)
    for node, index in group.offsets:
        _offset(group, node, index, inverse)
    for reader in group.readers:
        _read(reader, factor)
    for value in group.values:
        if (moments := moments_of(value)) is not None:
            scaled = ChannelMoments(moments.mean * inverse, moments.std * inverse)
            set_moments(value, scaled)


def input_columns(reader: Reader, channels: int, weight: NDArray[Any] | None = None) -> F64:
    """The weight of `reader` by output and input channel: shape [G, O / G, C / G, taps].

    Group g sums over the input channels g C / G to (g + 1) C / G; only a grouped convolution
    has several. Taps are positions of the kernel, or places where a channel is repeated.
    `weight` stands for another array of the same shape.
    """
    node = reader.node
    weight = const(node.inputs[1]) if weight is None else weight
    assert weight is not None
    weight = weight.astype(np.float64)
    groups = node.attributes.get_int("group", 1)
    if node.op_type == "Conv":
        return weight.reshape(groups, weight.shape[0] // groups, channels // groups, -1)
    if node.op_type == "ConvTranspose":
        split = weight.reshape(groups, channels // groups, weight.shape[1], -1)
        return split.swapaxes(1, 2)
    rows = weight if is_transposed(node) else weight.T
    return rows.reshape(1, rows.shape[0], channels, reader.repeat)


def _write(node: ir.Node, inverse: F64) -> None:
    if node.op_type == "BatchNormalization":
        indices, axis = [1, 2], 0
    else:
        indices = [1] if input_at(node, 2) is None or node.op_type == "MatMul" else [1, 2]
        axis = _known(channel_axis(node))
    for index in indices:
        old = const(node.inputs[index])
        assert old is not None
        if index == 2:  # one number a channel, or one for all
            new = np.asarray(old * inverse, old.dtype)
        else:
            new = scale_channels(old, inverse, axis)
        set_const(node, index, new, suffix=_SUFFIX)


def _read(reader: Reader, factor: F64) -> None:
    node = reader.node
    weight = const(node.inputs[1])
    assert weight is not None
    if node.op_type == "Conv":
        groups = node.attributes.get_int("group", 1)
        split = weight.reshape(groups, -1, *weight.shape[1:])
        gain = factor.reshape(groups, 1, weight.shape[1], *[1] * (weight.ndim - 2))
        scaled = np.asarray(split * gain, weight.dtype).reshape(weight.shape)
    else:
        axis = 1 if is_transposed(node) else 0
        scaled = scale_channels(weight, np.repeat(factor, reader.repeat), axis)
    set_const(node, 1, scaled, suffix=_SUFFIX)


def _offset(group: ChannelGroup, node: ir.Node, index: int, inverse: F64) -> None:
    out = node.outputs[0]
    where, rank = group.values[out], len(out.shape or ())
    old = const(node.inputs[index])
    assert old is not None
    spread = np.repeat(inverse, where.repeat).reshape(-1, *[1] * (rank - where.axis - 1))
    set_const(node, index, np.asarray(old * spread, old.dtype), suffix=_SUFFIX)


def _known(axis: int | None) -> int:
    assert axis is not None  # a grouped ConvTranspose writes no group
    return axis
