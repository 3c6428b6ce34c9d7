"""Checks of single Q and DQ nodes: scales, zero points and the types of the integers."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import onnx_ir as ir

from edgebm.backends.tensorrt.reading import (
    COPIES,
    DQ,
    Fault,
    Q,
    Reading,
    constant_behind,
    dequantizer,
    scale_of,
    sizes,
    stored_type,
    zero_of,
)
from edgebm.ir.edit import const, input_at, inputs
from edgebm.ir.traits import MATMULS, channel_axis

_TAKEN = frozenset({ir.DataType.INT8, ir.DataType.INT4, ir.DataType.FLOAT8E4M3FN})
_FP4 = "FLOAT4E2M1"  # a name, as older versions of onnx_ir do not have it
_INT4 = ir.DataType.INT4
_NARROW = frozenset({ir.DataType.INT8, ir.DataType.INT4, ir.DataType.UINT4})


def zero_points(reading: Reading) -> Iterator[Fault]:
    """E01."""
    for node in reading.grids():
        zero = zero_of(node)
        array = const(zero)
        if zero is not None and array is None:
            yield node, "its zero point is computed"
        elif array is not None and (off := int(np.count_nonzero(array))):
            if array.size == 1:
                yield node, f"its zero point is {array.reshape(-1)[0]}"
            else:
                yield node, f"{off} of its {array.size} zero points are not 0"


def integer_types(reading: Reading) -> Iterator[Fault]:
    """E02."""
    for node in reading.grids():
        dtype = stored_type(node)
        if dtype is None or dtype in _TAKEN or dtype.name == _FP4 or dtype == ir.DataType.INT32:
            continue
        way = "" if zero_of(node) is not None else ": it has no zero point to say otherwise"
        yield node, f"its integers are {dtype.name.lower()}{way}"


def integer_biases(reading: Reading) -> Iterator[Fault]:
    """E03."""
    for node in reading.of(DQ):
        if stored_type(node) == ir.DataType.INT32:
            users = sorted({use.node.op_type for use in node.outputs[0].uses()})
            yield node, f"it dequantizes int32 for {', '.join(users) or 'nobody'}"


def scales(reading: Reading) -> Iterator[Fault]:
    """E04."""
    for node in reading.grids():
        scale = scale_of(node)
        if scale is None:
            value = input_at(node, 1)
            producer = None if value is None else value.producer()
            yield node, f"its scale is computed by {producer.op_type if producer else 'an input'}"
            continue
        wrong = int(np.count_nonzero(~(np.isfinite(scale) & (scale > 0))))
        if wrong:
            yield node, f"{wrong} of its {scale.size} scales are not finite and above 0"


def scaled_activations(reading: Reading) -> Iterator[Fault]:
    """E05."""
    for node in reading.grids():
        scale = scale_of(node)
        if scale is not None and scale.size > 1 and constant_behind(input_at(node, 0)) is None:
            yield node, f"an activation has {scale.size} scales"


def channel_scales(reading: Reading) -> Iterator[Fault]:
    """E06."""
    for node in reading.grids():
        scale, shape = scale_of(node), sizes(input_at(node, 0))
        if scale is None or scale.size == 1 or scale.ndim != 1 or shape is None:
            continue
        axis = node.attributes.get_int("axis", 1)
        if not -len(shape) <= axis < len(shape):
            yield node, f"its scales lie along axis {axis} of {len(shape)}"
        elif shape[axis] != scale.size:
            yield node, f"it has {scale.size} scales, and axis {axis} has {shape[axis]} channels"
    for node in reading.of(*sorted(MATMULS)):
        yield from _weight_axis(node)


def _weight_axis(node: ir.Node) -> Iterator[Fault]:
    value = input_at(node, 1)
    found = dequantizer(value)
    # Behind a Transpose or Reshape the axis is another one, and right or wrong with it.
    if value is None or found is None or value.producer() is not found:
        return
    scale, shape = scale_of(found), sizes(input_at(found, 0))
    if scale is None or scale.size == 1 or scale.ndim != 1 or not shape:
        return
    wanted = len(shape) - 1 if node.op_type == "MatMul" else channel_axis(node)
    axis = found.attributes.get_int("axis", 1) % len(shape)
    if wanted is not None and axis != wanted:
        yield node, f"its weight has scales along axis {axis}, not {wanted}"


def grid_shapes(reading: Reading) -> Iterator[Fault]:
    """E07."""
    for node in reading.grids():
        scale, zero = scale_of(node), const(zero_of(node))
        if scale is None:
            continue
        if zero is not None and zero.size != scale.size:
            yield node, f"it has {scale.size} scales and {zero.size} zero points"
        shape = sizes(input_at(node, 0))
        if scale.size > 1 and scale.ndim > 1 and shape is not None:
            blocked = _blocked_axes(scale.shape, shape)
            if blocked is None:
                yield node, f"scales {_by(scale.shape)} do not divide a tensor {_by(shape)}"
            elif len(blocked) > 1:
                yield node, f"its blocks run along {len(blocked)} axes"


def _blocked_axes(scales: tuple[int, ...], shape: tuple[int, ...]) -> list[int] | None:
    """Axes along which some values share a scale; None where the shapes do not fit."""
    if len(scales) != len(shape) or any(
        s < 1 or d % s for s, d in zip(scales, shape, strict=True)
    ):
        return None
    return [axis for axis, (s, d) in enumerate(zip(scales, shape, strict=True)) if s != d]


def _by(shape: tuple[int, ...]) -> str:
    return "x".join(map(str, shape))


def scalars(reading: Reading) -> Iterator[Fault]:
    """E08."""
    for node in reading.grids():
        if sizes(input_at(node, 0)) == ():
            yield node, "it reads a scalar"


def int4_weights(reading: Reading) -> Iterator[Fault]:
    """E16."""
    for node in reading.grids():
        if stored_type(node) != _INT4:
            continue
        if constant_behind(input_at(node, 0)) is None:
            yield node, "an activation is int4"
            continue
        scale, shape = scale_of(node), sizes(input_at(node, 0))
        if shape and shape[-1] % 2:
            yield node, f"its last axis has {shape[-1]} values"
        if scale is not None and shape and len(_blocked_axes(scale.shape, shape) or []) != 1:
            have = _by(scale.shape) or "of one number"
            yield node, f"its scales {have} are not blocks along one axis of {_by(shape)}"


def bare_integers(reading: Reading) -> Iterator[Fault]:
    """E17."""
    for node in reading.nodes:
        if node.op_type in (Q, DQ):
            continue
        for value in inputs(node):
            folded = node.op_type in COPIES and constant_behind(value) is not None
            if value.dtype in _NARROW and not folded:
                yield node, f"it reads {value.dtype.name.lower()} from '{value.name}'"
