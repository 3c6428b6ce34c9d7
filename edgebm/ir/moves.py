"""Operations through which a positive factor per channel passes, and where the channels go."""

from __future__ import annotations

import math

import onnx_ir as ir

from edgebm.ir.edit import const, input_at

# f(s x) = s f(x) for s > 0, each channel for itself.
_ELEMENTWISE = frozenset({"Relu", "LeakyRelu", "PRelu", "Abs", "Neg", "Identity", "Dropout"})
_SPATIAL = frozenset({"MaxPool", "AveragePool", "GlobalAveragePool", "GlobalMaxPool"})
_REDUCTIONS = frozenset({"ReduceMean", "ReduceSum", "ReduceMax", "ReduceMin", "ReduceL2"})


def carry_back(node: ir.Node, axis: int) -> int | None:
    """The axis of input 0 whose channels are those on `axis` of the output.

    None where `node` does not hand a positive factor per channel through, or moves channels.
    """
    return axis if _keeps(node, axis) else None


def carry_on(node: ir.Node, axis: int) -> tuple[int, int] | None:
    """Where the channels on `axis` of input 0 lie in the output: (axis, repeat).

    Index i of the output's axis belongs to index i // repeat of the input's.

    None where `node` does not hand a positive factor per channel through.
    """
    if _keeps(node, axis):
        return axis, 1
    if node.op_type in _REDUCTIONS:
        return _reduced(node, axis)
    if node.op_type == "Transpose":
        order = node.attributes.get_ints("perm")
        return None if order is None else (list(order).index(axis), 1)
    if node.op_type in {"Flatten", "Reshape", "Squeeze"}:
        return _flattened(node, axis)
    return None


def upper_limit(node: ir.Node) -> float | None:
    """The limit of a Clip from 0 to a positive constant (a ReLU6); None for anything else.

    Below the limit a factor per channel passes through it.
    """
    if node.op_type != "Clip":
        return None
    low, high = const(input_at(node, 1)), const(input_at(node, 2))
    if low is None or high is None or float(low) != 0.0 or not 0.0 < float(high) < math.inf:
        return None
    return float(high)


def _keeps(node: ir.Node, axis: int) -> bool:
    """Whether the output's channels are the input's, on the same axis, each by itself."""
    if node.op_type in _ELEMENTWISE:
        return node.op_type != "PRelu" or const(node.inputs[1]) is not None
    if node.op_type in _SPATIAL:
        return axis == 1
    if node.op_type == "Clip":
        low, high = const(input_at(node, 1)), input_at(node, 2)
        return high is None and low is not None and float(low) == 0.0
    if node.op_type == "Pad":
        return _pads_zeros(node, axis)
    return False


def _pads_zeros(node: ir.Node, axis: int) -> bool:
    """Whether a Pad leaves `axis` alone and adds what scales along: zeros or copies."""
    pads, fill = const(node.inputs[1]), input_at(node, 2)
    if pads is None or input_at(node, 3) is not None:
        return False
    rank = len(pads) // 2
    number = const(fill)
    zeros = fill is None or (number is not None and float(number) == 0.0)
    copies = node.attributes.get_string("mode", "constant") != "constant"
    return (zeros or copies) and pads[axis] == 0 and pads[axis + rank] == 0


def _reduced(node: ir.Node, axis: int) -> tuple[int, int] | None:
    value, axes = node.inputs[0], const(input_at(node, 1))
    if value is None or value.shape is None or axes is None or not axes.size:
        return None
    gone = {int(a) % len(value.shape) for a in axes}
    if axis in gone:
        return None
    if node.attributes.get_int("keepdims", 1):
        return axis, 1
    return axis - sum(a < axis for a in gone), 1


def _flattened(node: ir.Node, axis: int) -> tuple[int, int] | None:
    """Axis 1 and all behind it made one, or axes of size 1 dropped or added behind it.

    The sizes must be known: [N, C, a, b] to [N, C a b], or [N, C, 1, 1] to [N, C] and back.
    """
    before, after = node.inputs[0], node.outputs[0]
    if axis != 1 or before is None or before.shape is None or after.shape is None:
        return None
    inner = [d for d in before.shape[1:] if isinstance(d, int)]
    outer = [d for d in after.shape[1:] if isinstance(d, int)]
    if len(inner) + 1 < len(before.shape) or len(outer) + 1 < len(after.shape) or not outer:
        return None
    channels, repeat = inner[0], math.prod(inner[1:])
    if math.prod(outer) != channels * repeat:
        return None
    if outer[0] == channels * repeat:
        return 1, repeat
    # Axes behind the channels may be split or joined: the channel axis stays.
    return (1, 1) if outer[0] == channels else None
