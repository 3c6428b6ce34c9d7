"""Checks of floating types: strong typing computes each node in the types that the file has."""

from __future__ import annotations

from collections.abc import Iterator

import onnx_ir as ir

from edgebm.backends.tensorrt.reading import (
    COPIES,
    DQ,
    FUSED,
    Fault,
    Q,
    Reading,
    dequantizer,
    float_types,
    is_quantized_layer,
    label,
    layer_before,
)
from edgebm.ir.edit import input_at, inputs
from edgebm.ir.traits import MATMULS

# Of two or more inputs of one type, by the ONNX standard too; files that tools cut up break it.
_ONE_TYPE = MATMULS | {
    "Add", "Sub", "Mul", "Div", "Min", "Max", "Sum", "Concat", "PRelu", "Less", "Greater",
}  # fmt: skip
_PLAIN = COPIES | {Q, DQ, "Constant", "ConstantOfShape", "Gather", "Expand", "Concat", "Pad"}
_FREE_SCALES = (11, 1)
_HALF = ir.DataType.FLOAT16
_SHOWN = 3


def one_type(reading: Reading) -> Iterator[Fault]:
    """E13."""
    for node in reading.of(Q):
        yield from ((node, why) for why in _quantizer(node, reading))
    for node in reading.of(DQ):
        yield from ((node, why) for why in _dequantizer(node))
    for node in reading.of(*sorted(_ONE_TYPE)):
        if len(types := float_types(node)) > 1:
            yield node, f"it reads {_listed(types)}"


def _quantizer(node: ir.Node, reading: Reading) -> Iterator[str]:
    value, scale = input_at(node, 0), input_at(node, 1)
    if value is None or scale is None or not value.dtype or not scale.dtype:
        return
    # The header of 11.1 takes FP32 scales beside any input.
    free = reading.version >= _FREE_SCALES and scale.dtype == ir.DataType.FLOAT
    if value.dtype != scale.dtype and not free:
        yield f"it reads {_text(value.dtype)} and its scale is {_text(scale.dtype)}"


def _dequantizer(node: ir.Node) -> Iterator[str]:
    value, scale, out = input_at(node, 0), input_at(node, 1), node.outputs[0]
    if scale is None or not scale.dtype:
        return
    if out.dtype and out.dtype != scale.dtype:
        yield f"its scale is {_text(scale.dtype)} and its output {_text(out.dtype)}"
    quantizer = None if value is None else value.producer()
    before = input_at(quantizer, 1) if quantizer is not None and quantizer.op_type == Q else None
    if before is not None and before.dtype and before.dtype != scale.dtype:
        yield f"its scale is {_text(scale.dtype)}, that of its Q {_text(before.dtype)}"


def remainder(reading: Reading) -> Iterator[Fault]:
    """W15."""
    if not reading.is_quantized:
        return
    left = [node for node in reading.nodes if _is_left_in_f32(node)]
    meant = _between_casts(left)
    left = [node for node in left if node not in meant]
    if left:
        names = ", ".join(f"{node.op_type} '{label(node)}'" for node in left[:_SHOWN])
        more = ", ..." if len(left) > _SHOWN else ""
        yield None, f"{len(left)} nodes that are not quantized compute in FP32: {names}{more}"


def _between_casts(nodes: list[ir.Node]) -> set[ir.Node]:
    """Those that FP16 reaches, or that reach it, through Casts and others of `nodes`."""
    known = set(nodes)
    front = [node for node in nodes if _touches_half(node)]
    found = set(front)
    while front:
        for near in _neighbours(front.pop()):
            if near in known and near not in found:
                found.add(near)
                front.append(near)
    return found


def _touches_half(node: ir.Node) -> bool:
    for near in _neighbours(node):
        values = (*near.inputs, *near.outputs)
        if near.op_type == "Cast" and any(v is not None and v.dtype == _HALF for v in values):
            return True
    return False


def _neighbours(node: ir.Node) -> list[ir.Node]:
    """What computes the inputs of `node`, and what reads its outputs."""
    before = [value.producer() for value in inputs(node)]
    behind = [user for out in node.outputs for user, _ in out.uses()]
    return [*(n for n in before if n is not None), *behind]


def _is_left_in_f32(node: ir.Node) -> bool:
    first = input_at(node, 0)
    before = None if first is None else first.producer()
    if node.op_type in FUSED and before is not None and before.op_type == "Add":
        node = before  # what stands behind a residual sum is fused into it
    if node.op_type in _PLAIN or float_types(node) != {ir.DataType.FLOAT}:
        return False
    if any(dequantizer(value) for value in node.inputs):
        return False
    return not is_quantized_layer(layer_before(node.outputs[0]))  # fused into it, or it itself


def _listed(types: set[ir.DataType]) -> str:
    return " and ".join(sorted(map(_text, types)))


def _text(dtype: ir.DataType) -> str:
    return dtype.name.lower()
