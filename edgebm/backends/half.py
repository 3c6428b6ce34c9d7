"""Which nodes of a graph must compute in FP32 where the rest computes in FP16, and why."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

import numpy as np
import onnx_ir as ir

from edgebm.ir.annotate import Extent, extent_of
from edgebm.ir.edit import const, inputs
from edgebm.ir.model import Model
from edgebm.ir.traits import MATMULS, RECURRENT, is_float

_MOST = float(np.finfo(np.float16).max)
# Half of what FP16 can hold: an input that calibration has not seen may be larger.
LARGEST = _MOST / 2
# Rounding to FP16 makes noise of x^2 * 2^-22 / 3. What varies shall stand 30 dB above it.
_MOST_OFFSET = 3 * 2**22 / 1000
_COARSE = 0.01  # relative error of a constant that is no FP16 number any more
_Q_DQ = frozenset({"QuantizeLinear", "DequantizeLinear"})
# Small differences become large, or large ones larger: what they give is not for FP16.
_STEEP = frozenset({
    "Pow", "Sqrt", "Reciprocal", "Log", "Exp", "ReduceSumSquare", "ReduceL2", "ReduceLogSum",
    "ReduceLogSumExp", "ReduceProd", "CumSum", "Range",
})  # fmt: skip
# Runtimes have them for FP32 only, or they make numbers up.
_F32_ONLY = frozenset({
    "NonMaxSuppression", "RandomNormal", "RandomNormalLike", "RandomUniform", "RandomUniformLike",
    "Multinomial", "Bernoulli",
})  # fmt: skip
_GRAPHS = (ir.AttributeType.GRAPH, ir.AttributeType.GRAPHS)
_SCALED = frozenset({"Div", "Mul"})
# Nodes between two that stay in FP32, at most, that stay with them: the mean and the epsilon
# between the square and the root of a normalization.
_BETWEEN = 3


def needs_f32(model: Model) -> dict[str, str]:
    """The nodes that stay in FP32, by name, and why.

    Known are the extents of values (`ir.annotate.extent_of`); a value without one is taken to
    fit. Of a pair of Q and DQ both are named, or neither.
    """
    found = {node.name or "": why for node in model.nodes() if (why := _own_reason(node))}
    nodes = {node.name or "": node for node in model.nodes()}
    for name, why in list(_around(nodes)):
        found.setdefault(name, why)
    for name in list(_between(nodes, found)):
        found.setdefault(name, "it stands between nodes that stay in f32")
    _settle_pairs(nodes, found)
    return found


def _own_reason(node: ir.Node) -> str:
    """Why a node stays in FP32 for its own sake; "" for others and where it has no floats."""
    values = [v for v in (*inputs(node), *node.outputs) if is_float(v)]
    if not values:
        return ""
    if any(attr.type in _GRAPHS for attr in _attrs(node)):
        return "it has a graph of its own"
    if node.op_type in _F32_ONLY:
        return f"{node.op_type} computes in f32"
    if _is_steep(node):
        return f"{node.op_type} loses too much in f16"
    for value in values:
        if why := _unfit(value):
            return why
    return ""


def _is_steep(node: ir.Node) -> bool:
    return node.op_type in _STEEP or (
        node.op_type == "Mul" and node.inputs[0] is node.inputs[1]  # a square
    )


def _attrs(node: ir.Node) -> Iterator[ir.Attr]:
    return (attr for attr in node.attributes.values() if isinstance(attr, ir.Attr))


def _unfit(value: ir.Value) -> str:
    """Why a float value is none for FP16."""
    array = const(value)
    if array is None:
        extent = _extent(value)
        if extent is not None and extent.peak > LARGEST:
            return f"'{value.name}' reaches {extent.peak:.3g}"
        if extent is not None and extent.offset > _MOST_OFFSET:
            return f"'{value.name}' varies by a {extent.offset**0.5:.0f}th of itself"
        return ""
    top = float(np.abs(array).max(initial=0.0))
    if top > _MOST:
        return f"the constant '{value.name}' reaches {top:.3g}"
    # Of a tensor some small values may go; a single number is there for what it is.
    if array.size == 1 and top and abs(float(np.float16(top)) - top) > _COARSE * top:
        return f"the constant '{value.name}' is {top:.3g}"
    return ""


def _extent(value: ir.Value) -> Extent | None:
    """The extent of a value, or of what was rounded to make it."""
    while (producer := value.producer()) is not None and producer.op_type in _Q_DQ:
        before = producer.inputs[0]
        if before is None:
            break
        value = before
    return extent_of(value)


def _around(nodes: Mapping[str, ir.Node]) -> Iterator[tuple[str, str]]:
    """Neighbours that only make sense in FP32: what divides by a root, sums squares, counts."""
    for name, node in nodes.items():
        scales = node.op_type in _SCALED or node.op_type.startswith("Reduce")
        for before in filter(_is_steep, _producers(node) if scales else ()):
            yield name, f"it reads {before.op_type} '{before.name}'"
        if node.op_type == "Div" and const(node.inputs[1]) is None:
            yield name, "its divisor is computed"
        if node.op_type == "Cast" and not is_float(node.outputs[0]) and is_float(node.inputs[0]):
            why = f"'{node.outputs[0].name}' is made of it, which counts"
            yield name, why
            yield from ((before, why) for before in _counted(node))


def _counted(cast: ir.Node) -> Iterator[str]:
    """What a float is computed by that becomes an integer: FP16 counts to 2048 only."""
    left, seen = [cast], set()
    while left:
        for before in _producers(left.pop()):
            heavy = before.op_type in MATMULS | RECURRENT or before.op_type in _Q_DQ
            if before not in seen and not heavy and any(is_float(v) for v in before.outputs):
                seen.add(before)
                left.append(before)
                yield before.name or ""


def _between(nodes: Mapping[str, ir.Node], found: Mapping[str, str]) -> Iterator[str]:
    """Nodes on a short way from one that stays in FP32 to another."""
    for name in found:
        yield from _on_the_way(nodes[name], found, _BETWEEN)


def _on_the_way(start: ir.Node, found: Mapping[str, str], steps: int) -> set[str]:
    """Names of nodes behind `start`, at most `steps` in a row, that lead to one of `found`."""
    names: set[str] = set()
    for out in start.outputs:
        for user, _ in out.uses() if is_float(out) else ():
            label = user.name or ""
            if label in found or not steps or user.op_type in MATMULS | RECURRENT | _Q_DQ:
                continue
            beyond = _on_the_way(user, found, steps - 1)
            ends = (u.name in found for o in user.outputs for u, _ in o.uses() if is_float(o))
            if beyond or any(ends):
                names |= beyond | {label}
    return names


def _settle_pairs(nodes: Mapping[str, ir.Node], found: dict[str, str]) -> None:
    """A pair of Q and DQ has the type of what reads it, for an integer kernel reads both."""
    for node in nodes.values():
        if node.op_type != "DequantizeLinear":
            continue
        users = [user.name in found for user, _ in node.outputs[0].uses()]
        before = node.inputs[0]
        quantizer = None if before is None else before.producer()
        pair = [n for n in (node, quantizer) if n is not None and n.op_type in _Q_DQ]
        if users and all(users):
            for each in pair:
                found.setdefault(each.name or "", "what reads it stays in f32")
        elif not any(each.name in found for each in pair[:1]):
            for each in pair:
                found.pop(each.name or "", None)


def _producers(node: ir.Node) -> list[ir.Node]:
    """What computes the float inputs of `node`."""
    found = (v.producer() for v in inputs(node) if is_float(v))
    return [n for n in found if n is not None]
