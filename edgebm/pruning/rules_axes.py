"""Rules of ops that leave every axis where it is: arithmetic, norms, pools, reductions."""

from __future__ import annotations

from collections.abc import Callable

import onnx_ir as ir

from edgebm.ir.edit import const, input_at, inputs
from edgebm.pruning.trace import Trace

Rule = Callable[[ir.Node, Trace], None]

_ELEMENTWISE = (
    "Abs", "Acos", "Acosh", "Add", "And", "Asin", "Asinh", "Atan", "Atanh", "BitwiseAnd",
    "BitwiseNot", "BitwiseOr", "Cast", "Ceil", "Celu", "Clip", "Cos", "Cosh", "Div", "Dropout",
    "Elu", "Equal", "Erf", "Exp", "Expand", "Floor", "Gelu", "Greater", "GreaterOrEqual",
    "HardSigmoid", "HardSwish", "Identity", "IsInf", "IsNaN", "LeakyRelu", "Less", "LessOrEqual",
    "Log", "Max", "Mean", "Min", "Mish", "Mod", "Mul", "Neg", "Not", "Or", "PRelu", "Pow",
    "Reciprocal", "Relu", "Round", "Selu", "Shrink", "Sigmoid", "Sign", "Sin", "Sinh", "Softplus",
    "Softsign", "Sqrt", "Sub", "Sum", "Tan", "Tanh", "ThresholdedRelu", "Where", "Xor",
)  # fmt: skip
_POOLS = ("MaxPool", "AveragePool", "LpPool", "GlobalAveragePool", "GlobalMaxPool", "GlobalLpPool")
# Reductions that a mask can leave elements out of.
REDUCTIONS = ("ReduceSum", "ReduceMean", "ReduceMax", "ReduceMin", "ReduceL1", "ReduceL2",
              "ReduceSumSquare")  # fmt: skip
_OTHER_REDUCTIONS = ("ReduceProd", "ReduceLogSum", "ReduceLogSumExp")
_ALONG = {"Softmax": -1, "LogSoftmax": -1, "Hardmax": -1, "LpNormalization": -1, "CumSum": 0}
SOFTMAX = ("Softmax", "LogSoftmax")


def broadcast(node: ir.Node, trace: Trace, values: list[ir.Value]) -> None:
    """Every axis of every operand lies on one of the output; those of size 1 are spread."""
    out = node.outputs[0]
    rank = trace.rank(out)
    if rank < 0 or any(trace.rank(value) < 0 for value in values):
        trace.freeze_node(node, "the number of its axes is not known")
        return
    for value in values:
        ahead = rank - trace.rank(value)
        for axis in range(trace.rank(value)):
            if not trace.is_one(value, axis):
                trace.join(node, (value, axis), (out, axis + ahead))


def _elementwise(node: ir.Node, trace: Trace) -> None:
    values = inputs(node)
    if node.op_type in {"Expand", "Dropout"}:
        values = values[:1]
    broadcast(node, trace, values)
    if any(value.name and value.uses() for value in node.outputs[1:]):
        trace.freeze_node(node, "its second output is read")


def keep_axes(node: ir.Node, trace: Trace, *, but: set[int]) -> None:
    """Tie all axes of the first input and the first output by number, except `but`."""
    value, out = node.inputs[0], node.outputs[0]
    assert value is not None
    rank = trace.rank(value)
    if rank < 0 or rank != trace.rank(out):
        trace.freeze_node(node, "the number of its axes is not known")
        return
    for axis in set(range(rank)) - but:
        trace.join(node, (value, axis), (out, axis))


def _batch_norm(node: ir.Node, trace: Trace) -> None:
    keep_axes(node, trace, but=set())
    for value in node.inputs[1:]:
        if value is not None:
            trace.join(node, (value, 0), (node.outputs[0], 1))


def _instance_norm(node: ir.Node, trace: Trace) -> None:
    """One statistic for each sample and channel, over all axes behind them."""
    _batch_norm(node, trace)
    value = node.inputs[0]
    assert value is not None
    for axis in range(2, trace.rank(value)):
        if trace.of(value, axis) is not None:
            trace.take(node, 0, axis)


def _layer_norm(node: ir.Node, trace: Trace) -> None:
    """One statistic over `axis` and all behind it; scale and shift lie along these."""
    keep_axes(node, trace, but=set())
    value, out = node.inputs[0], node.outputs[0]
    assert value is not None
    rank = trace.rank(value)
    if rank < 0 or any(extra.uses() for extra in node.outputs[1:]):
        trace.freeze_node(node, "its mean or deviation is read, too")
        return
    first = node.attributes.get_int("axis", -1) % rank
    for parameter in inputs(node)[1:]:
        ahead = rank - trace.rank(parameter)
        for axis in range(trace.rank(parameter)):
            if not trace.is_one(parameter, axis):
                trace.join(node, (parameter, axis), (out, axis + ahead))
    for axis in range(first, rank):
        if trace.of(value, axis) is not None:
            trace.take(node, 0, axis)


def _pool(node: ir.Node, trace: Trace) -> None:
    value, out = node.inputs[0], node.outputs[0]
    assert value is not None
    spatial = set(range(2, max(2, trace.rank(value))))
    keep_axes(node, trace, but=spatial)
    trace.freeze(node, [(v, a) for v in (value, out) for a in spatial], "it moves over positions")
    if len(node.outputs) > 1 and (node.outputs[1].uses() or node.outputs[1].is_graph_output()):
        trace.freeze_node(node, "the places of its maxima are read, too")


def _reduce(node: ir.Node, trace: Trace) -> None:
    value, out = node.inputs[0], node.outputs[0]
    assert value is not None
    rank, axes = trace.rank(value), const(input_at(node, 1))
    if rank < 0 or (axes is None and input_at(node, 1) is not None):
        trace.freeze_node(node, "the axes it reduces are not known")
        return
    if axes is None or not axes.size:
        nothing = node.attributes.get_int("noop_with_empty_axes", 0)
        gone = set() if nothing else set(range(rank))
    else:
        gone = {int(axis) % rank for axis in axes.reshape(-1)}
    keep = node.attributes.get_int("keepdims", 1)
    for axis in range(rank):
        if axis in gone:
            if node.op_type not in REDUCTIONS:
                trace.freeze(node, [(value, axis)], f"{node.op_type} reduces it")
            elif trace.of(value, axis) is not None:
                trace.take(node, 0, axis)
        else:
            behind = axis if keep else axis - sum(a < axis for a in gone)
            trace.join(node, (value, axis), (out, behind))


def _along(node: ir.Node, trace: Trace) -> None:
    """Softmax and others that look along one axis."""
    value = node.inputs[0]
    assert value is not None
    keep_axes(node, trace, but=set())
    rank = trace.rank(value)
    if rank < 0:
        return
    axis = node.attributes.get_int("axis", _ALONG[node.op_type])
    if node.op_type == "CumSum":
        given = const(input_at(node, 1))
        if given is None:
            trace.freeze_node(node, "the axis it sums along is not known")
            return
        axis = int(given.reshape(-1)[0])
    axis %= rank
    if node.op_type not in SOFTMAX:
        trace.freeze(node, [(value, axis)], f"{node.op_type} looks along it")
    elif trace.of(value, axis) is not None:
        trace.take(node, 0, axis)


def _local_norm(node: ir.Node, trace: Trace) -> None:
    """LRN: each channel is divided by what lies in a window of channels around it."""
    value = node.inputs[0]
    assert value is not None
    keep_axes(node, trace, but=set())
    if trace.rank(value) > 1 and trace.of(value, 1) is not None:
        trace.take(node, 0, 1)


def _arg(node: ir.Node, trace: Trace) -> None:
    value, out = node.inputs[0], node.outputs[0]
    assert value is not None
    rank = trace.rank(value)
    if rank < 0:
        trace.freeze_node(node, "the number of its axes is not known")
        return
    gone = node.attributes.get_int("axis", 0) % rank
    keep = node.attributes.get_int("keepdims", 1)
    for axis in range(rank):
        if axis == gone:
            trace.freeze(node, [(value, axis)], f"{node.op_type} gives positions along it")
        else:
            trace.join(node, (value, axis), (out, axis if keep or axis < gone else axis - 1))


def _size(node: ir.Node, trace: Trace) -> None:
    """Known sizes are folded long since; one like 12*batch must not be divided by 12 later."""
    value = node.inputs[0]
    assert value is not None
    for axis in range(trace.rank(value)):
        if trace.is_free(value, axis):
            trace.freeze(node, [(value, axis)], "its size is computed with")


def _filled(node: ir.Node, trace: Trace) -> None:
    """Values made from sizes alone: their axes go with whatever reads them."""


RULES: dict[str, Rule] = {
    **dict.fromkeys(_ELEMENTWISE, _elementwise),
    "BatchNormalization": _batch_norm,
    "InstanceNormalization": _instance_norm,
    "LayerNormalization": _layer_norm,
    "LRN": _local_norm,
    **dict.fromkeys(_POOLS, _pool),
    **dict.fromkeys((*REDUCTIONS, *_OTHER_REDUCTIONS), _reduce),
    **dict.fromkeys(_ALONG, _along),
    **dict.fromkeys(("ArgMax", "ArgMin"), _arg),
    **dict.fromkeys(("Shape", "Size"), _size),
    "ConstantOfShape": _filled,
}
