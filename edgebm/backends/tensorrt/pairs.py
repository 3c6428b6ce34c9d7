"""Checks of where pairs of Q and DQ stand: around what gains nothing, or twice, or on one side."""

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
    adds_constant,
    constant_behind,
    dequantizer,
    goes_into_q,
    is_quantized_layer,
    label,
    layer_before,
    readers,
    same_scale,
    scale_of,
    source,
)
from edgebm.ir.edit import input_at, inputs
from edgebm.ir.traits import is_float

_REDUCTIONS = frozenset(
    {
        "ReduceMean", "ReduceSum", "ReduceMax", "ReduceMin", "ReduceProd", "ReduceL1", "ReduceL2",
        "ReduceLogSum", "ReduceLogSumExp", "ReduceSumSquare",
    }
)  # fmt: skip
_FLOAT_ONLY = _REDUCTIONS | {
    "Softmax", "LogSoftmax", "LayerNormalization", "InstanceNormalization", "GroupNormalization",
    "RMSNormalization", "Gelu", "Erf", "Sigmoid", "Tanh", "Exp", "Sqrt", "Pow",
}  # fmt: skip
_MOVED = COPIES - {"MaxPool", "Cast"}  # MaxPool is with the pooling rules
_HANDED_ON = COPIES | FUSED | {"Concat"}
_POOLS = ("AveragePool", "GlobalAveragePool")


def float_only(reading: Reading) -> Iterator[Fault]:
    """W04."""
    for node in reading.of(*sorted(_FLOAT_ONLY)):
        value = input_at(node, 0)
        if value is None or (found := dequantizer(value)) is None:
            continue
        if not (node.op_type == "LayerNormalization" and _comes_from_conv(value)):
            yield node, f"it computes in float and reads '{label(found)}'"
    for node in reading.of(*sorted(_MOVED)):
        before = _direct(input_at(node, 0))
        if before is None or constant_behind(input_at(node, 0)) is not None:
            continue
        if any(user.op_type == Q for out in node.outputs for user in readers(out)):
            yield node, "it only moves values, and has Q/DQ on both sides"


def _comes_from_conv(value: ir.Value) -> bool:
    """Whether all of `value` is written by Convs, but for constants that are added or joined."""
    left, seen, found = [value], set[ir.Node](), False
    while left:
        node = source(left.pop()).producer()
        if node is None:
            return False
        if node.op_type == "Conv":
            found = True
        elif node.op_type not in _HANDED_ON and not adds_constant(node):
            return False
        elif node not in seen:
            seen.add(node)
            left += [v for v in inputs(node) if is_float(v) and constant_behind(v) is None]
    return found


def _direct(value: ir.Value | None) -> ir.Node | None:
    """The DQ that writes `value`."""
    node = None if value is None else value.producer()
    return node if node is not None and node.op_type == DQ else None


def concats(reading: Reading) -> Iterator[Fault]:
    """W09."""
    for node in reading.of("Concat"):
        ends = [found for value in node.inputs if (found := dequantizer(value)) is not None]
        if ends:
            ends += [user for user in readers(node.outputs[0]) if user.op_type == Q]
            if count := _different(ends):
                yield node, f"its inputs and output have {count} different scales"


def _different(nodes: list[ir.Node]) -> int:
    """How many different scales these Q and DQ have; 0 if they share one."""
    groups: list[ir.Node] = []
    for node in nodes:
        if scale_of(node) is not None and not any(same_scale(node, seen) for seen in groups):
            groups.append(node)
    return len(groups) if len(groups) > 1 else 0


def rounded_twice(reading: Reading) -> Iterator[Fault]:
    """W10."""
    for node in reading.of(Q):
        value = input_at(node, 0)
        found = dequantizer(value)
        if found is None or constant_behind(value) is not None or same_scale(found, node):
            continue
        if scale_of(found) is not None and scale_of(node) is not None:
            yield node, f"what it quantizes was dequantized by '{label(found)}', of another scale"


def outputs(reading: Reading) -> Iterator[Fault]:
    """W11."""
    for value in reading.graph.outputs:
        if (found := dequantizer(value)) is not None:
            yield found, f"it gives the model output '{value.name}'"


def one_scale(reading: Reading) -> Iterator[Fault]:
    """W12."""
    first: dict[ir.Value, list[ir.Node]] = {}
    for node in reading.of(Q):
        if (value := input_at(node, 0)) is not None and value.const_value is None:
            first.setdefault(value, []).append(node)
    for value, nodes in first.items():
        if count := _different(nodes):
            yield nodes[0], f"'{value.name}' is quantized by {count} different scales"


def both_sides(reading: Reading) -> Iterator[Fault]:
    """W14."""
    for node in reading.of(*_POOLS):
        if _direct(input_at(node, 0)) is not None and not goes_into_q(node.outputs[0]):
            yield node, "its input is quantized, and its output is not"
    for node in reading.of("Add"):
        yield from _sum(node)
    for node in reading.of("MaxPool"):
        value = input_at(node, 0)
        lonely = not is_quantized_layer(layer_before(value)) and not any(
            is_quantized_layer(user) for user in readers(node.outputs[0], COPIES | {Q, DQ})
        )
        if _direct(value) is not None and lonely:
            yield node, "its input is quantized, and no layer beside it is"
    for node in reading.of("Resize"):
        value = input_at(node, 0)
        if dequantizer(value) is None and is_quantized_layer(layer_before(value)):
            yield node, "it reads a quantized convolution in float"


def _sum(node: ir.Node) -> Iterator[Fault]:
    """An Add of two computed values, none of which a convolution writes: those are W05's."""
    terms = [value for value in node.inputs if value is not None and is_float(value)]
    if len(terms) != 2 or any(constant_behind(value) for value in terms):
        return
    producers = [source(value).producer() for value in terms]
    if any(p is not None and p.op_type in {"Conv", "BatchNormalization"} for p in producers):
        return
    quantized = [dequantizer(value) is not None for value in terms]
    if quantized[0] != quantized[1]:
        yield node, f"'{terms[quantized.index(True)].name}' is quantized, its other term is not"
    elif all(quantized) and not goes_into_q(node.outputs[0]):
        yield node, "its terms are quantized, and its output is not"
