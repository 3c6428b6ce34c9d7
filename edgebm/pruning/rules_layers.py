"""Rules of layers: what makes units with constant weights, and what takes them in."""

from __future__ import annotations

import onnx_ir as ir

from edgebm.ir.edit import const, input_at
from edgebm.pruning.rules_axes import Rule
from edgebm.pruning.trace import Axis, Trace

_MIXES = "it mixes neighbouring positions"


def whole_groups(groups: int, inputs_each: int) -> bool:
    """Whether the units of a grouped convolution are its groups.

    Else a unit is one channel in every group: groups stay equally wide. The finer of both.
    """
    return groups > 1 and groups >= inputs_each


def _conv(node: ir.Node, trace: Trace) -> None:
    value, weight, out = node.inputs[0], node.inputs[1], node.outputs[0]
    assert value is not None
    assert weight is not None
    if const(weight) is None or trace.rank(value) < 3 or trace.rank(out) < 3:
        trace.freeze_node(node, "its weights are computed, or its axes are not known")
        return
    trace.join(node, (value, 0), (out, 0))
    _spatial(node, trace, value, out)
    transposed = node.op_type == "ConvTranspose"
    rows, columns = ((weight, 1), (weight, 0)) if transposed else ((weight, 0), (weight, 1))
    groups = node.attributes.get_int("group", 1)
    trace.make(node, (out, 1))
    if (bias := input_at(node, 2)) is not None:
        trace.join(node, (bias, 0), (out, 1))
    if groups == 1:
        trace.join(node, rows, (out, 1))
        trace.join(node, columns, (value, 1))
        trace.read(node, columns, (value, 1))
        return
    # The weight has all rows on one axis and one group's channels on the other.
    trace.join(node, (weight, 0), (value, 1) if transposed else (out, 1))
    taken, made = trace.of(value, 1), trace.of(out, 1)
    if taken is None or made is None or len(taken) % groups or len(made) % groups:
        trace.freeze_node(node, "its channels cannot be counted")
        return
    taken, made = taken.reshape(groups, -1), made.reshape(groups, -1)
    if whole_groups(groups, taken.shape[1]):
        trace.labels.tie(taken, taken[:, :1])
        trace.labels.tie(made, taken[:, :1])
        trace.freeze(node, [(weight, 1)], "one group's channels go together")
        return
    trace.labels.tie(taken, taken[:1])
    trace.labels.tie(made, made[:1])
    inner = made[0] if transposed else taken[0]
    trace.tie(node, trace.of(weight, 1) if len(inner) > 1 else None, inner)
    trace.read(node, columns, (value, 1))


def _spatial(node: ir.Node, trace: Trace, value: ir.Value, out: ir.Value) -> None:
    count = trace.rank(value) - 2
    weight = const(node.inputs[1])
    assert weight is not None
    strides = node.attributes.get_ints("strides", [1] * count)
    padded = any(node.attributes.get_ints("pads", [])) or "auto_pad" in node.attributes
    for axis in range(2, 2 + count):
        pair = [(value, axis), (out, axis)]
        if weight.shape[axis] == 1 and strides[axis - 2] == 1 and not padded:
            trace.join(node, *pair)
        else:
            trace.freeze(node, pair, _MIXES)


def _contract(node: ir.Node, trace: Trace, left: Axis, right: Axis) -> None:
    """Sum over two axes that belong together."""
    trace.join(node, left, right)
    if const(right[0]) is not None:
        trace.read(node, right, left)
    elif const(left[0]) is not None:
        trace.read(node, left, right)
    elif trace.of(*left) is not None:
        trace.take(node, 0, left[1])


def _matmul(node: ir.Node, trace: Trace) -> None:
    left, right, out = node.inputs[0], node.inputs[1], node.outputs[0]
    assert left is not None
    assert right is not None
    ranks = trace.rank(left), trace.rank(right)
    rank = trace.rank(out)
    if min(*ranks) < 1 or rank < 0:
        trace.freeze_node(node, "the number of its axes is not known")
        return
    columns = ranks[1] > 1
    _contract(node, trace, (left, ranks[0] - 1), (right, max(ranks[1] - 2, 0)))
    if ranks[0] > 1:
        trace.join(node, (left, ranks[0] - 2), (out, rank - 1 - columns))
    if columns:
        trace.join(node, (right, ranks[1] - 1), (out, rank - 1))
    batch = max(ranks) - 2
    for value, own in zip((left, right), ranks, strict=True):
        for axis in range(own - 2):
            if not trace.is_one(value, axis):
                trace.join(node, (value, axis), (out, axis + batch - (own - 2)))
                if const(left) is None and const(right) is None:
                    trace.heads.append((value, axis))
    if const(right) is not None and columns:
        trace.make(node, (out, rank - 1))
    elif const(left) is not None and ranks[0] > 1:
        trace.make(node, (out, rank - 1 - columns))


def _gemm(node: ir.Node, trace: Trace) -> None:
    left, right, out = node.inputs[0], node.inputs[1], node.outputs[0]
    assert left is not None
    assert right is not None
    over = node.attributes.get_int("transA", 0), node.attributes.get_int("transB", 0)
    _contract(node, trace, (left, 1 - over[0]), (right, over[1]))
    trace.join(node, (left, over[0]), (out, 0))
    trace.join(node, (right, 1 - over[1]), (out, 1))
    if (bias := input_at(node, 2)) is not None:
        ahead = 2 - trace.rank(bias)
        for axis in range(trace.rank(bias)):
            if not trace.is_one(bias, axis):
                trace.join(node, (bias, axis), (out, axis + ahead))
    if const(right) is not None:
        trace.make(node, (out, 1))


RULES: dict[str, Rule] = {
    **dict.fromkeys(("Conv", "ConvTranspose"), _conv),
    "MatMul": _matmul,
    "Gemm": _gemm,
}
