"""Where the time axis of a node's output is, or why the node mixes steps: one rule per op."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from functools import partial

import onnx_ir as ir

from edgebm.ir.edit import const, input_at
from edgebm.ir.time_cuts import concat_place, gather_place, pad_place, slice_place, split_place
from edgebm.ir.time_place import (
    LAST,
    Last,
    MixesSteps,
    Place,
    Walk,
    Where,
    aligned,
    first,
    shape_of,
    with_one_step,
)

ELEMENTWISE = frozenset(
    {"Abs", "Add", "And", "BitShift", "Cast", "Ceil", "Celu", "Clip", "Cos", "Div", "Dropout",
     "Elu", "Equal", "Erf", "Exp", "Floor", "Gelu", "Greater", "GreaterOrEqual", "HardSigmoid",
     "HardSwish", "Identity", "IsInf", "IsNaN", "LeakyRelu", "Less", "LessOrEqual", "Log", "Max",
     "Mean", "Min", "Mish", "Mod", "Mul", "Neg", "Not", "Or", "PRelu", "Pow", "Reciprocal", "Relu",
     "Round", "Selu", "Sigmoid", "Sign", "Sin", "Softplus", "Softsign", "Sqrt", "Sub", "Sum",
     "Tanh", "ThresholdedRelu", "Where", "Xor"}
)  # fmt: skip
_NORMALIZED = {"Softmax": -1, "LogSoftmax": -1, "Hardmax": -1, "LpNormalization": -1}
_KEEPDIMS = 1


def place_of(node: ir.Node, walk: Walk) -> Where:
    """Where time is in the node's first output.

    Raises:
        MixesSteps: it mixes steps, or it is not known whether it does.
    """
    found = [walk.at(value) for value in node.inputs]
    timed = [place for place in found if isinstance(place, Place)]
    last = any(isinstance(place, Last) for place in found)
    if not timed:
        return LAST if last else None
    if last:
        raise MixesSteps(
            "brings what is known after the last step together with single steps; a stream does "
            "not know its future"
        )
    if node.op_type in ("Shape", "Size"):
        return None
    if node.op_type in ELEMENTWISE:
        return aligned(node, walk)
    rule = _RULES.get(node.op_type) or (_reduced if node.op_type.startswith("Reduce") else None)
    if rule is None:
        raise MixesSteps(f"it is not known whether {node.op_type} mixes steps")
    return rule(node, walk)


def _transpose(node: ir.Node, walk: Walk) -> Place:
    place = first(node, walk)
    order = node.attributes.get_ints("perm")
    rank = len(shape_of(node.inputs[0]))
    order = list(range(rank))[::-1] if order is None else list(order)
    return Place(order.index(place.axis), place.outer, place.inner)


def _reshape(node: ir.Node, walk: Walk) -> Place:
    """Sizes are grouped from the left: time stays inside its group, at the same distance."""
    place = first(node, walk)
    before, after = shape_of(node.inputs[0]), shape_of(node.outputs[0])
    steps = walk.steps
    outer = math.prod(before[: place.axis]) * place.outer
    inner = math.prod(before[place.axis + 1 :]) * place.inner
    for axis, size in enumerate(after):
        ahead, behind = math.prod(after[:axis]), math.prod(after[axis + 1 :])
        if outer % ahead or inner % behind or size != outer // ahead * steps * (inner // behind):
            continue
        if node.op_type == "Reshape":
            walk.edit(node, 1, partial(with_one_step, axis=axis, steps=steps))
        return Place(axis, outer // ahead, inner // behind)
    raise MixesSteps(f"cuts {list(before)} to {list(after)} across steps")


def _expand(node: ir.Node, walk: Walk) -> Place:
    place = aligned(node, walk)
    rank = len(shape_of(node.outputs[0]))
    walk.edit(node, 1, lambda dims: with_one_step(dims, place.axis - rank, walk.steps))
    return place


def _matmul(node: ir.Node, walk: Walk) -> Place:
    left, right = node.inputs[0], node.inputs[1]
    ranks = [len(shape_of(value)) for value in (left, right)]
    rank = len(shape_of(node.outputs[0]))
    sides: set[Place] = set()
    for value, own, inner, across in (
        (left, ranks[0], -1, rank - 2),
        (right, ranks[1], -2, rank - 1),
    ):
        place = walk.at(value)
        if not isinstance(place, Place):
            continue
        back = place.axis - own
        if back == inner or (own == 1 and back == -1):
            raise MixesSteps("adds up products over the steps (attention does that)")
        axis = across if back in (-1, -2) else place.axis + rank - own
        sides.add(Place(axis, place.outer, place.inner))
    if len(sides) > 1:
        raise MixesSteps("multiplies every step with every other one (attention does that)")
    return sides.pop()


def _gemm(node: ir.Node, walk: Walk) -> Place:
    place = first(node, walk)
    across = 1 if node.attributes.get_int("transA", 0) else 0
    if place.axis != across:
        raise MixesSteps("adds up products over the steps")
    return Place(0, place.outer, place.inner)


def _reduced(node: ir.Node, walk: Walk) -> Place:
    place = first(node, walk)
    rank = len(shape_of(node.inputs[0]))
    given = const(input_at(node, 1))
    axes = range(rank) if given is None or not given.size else [int(a) % rank for a in given]
    return _without(node, place, axes)


def _without(node: ir.Node, place: Place, axes: Sequence[int]) -> Place:
    if place.axis in axes:
        raise MixesSteps(
            f"takes {node.op_type} over all steps; a stream has only those until now: end the "
            "model on the last step, or on every one"
        )
    if node.attributes.get_int("keepdims", _KEEPDIMS):
        return place
    return Place(place.axis - sum(a < place.axis for a in axes), place.outer, place.inner)


def _arg(node: ir.Node, walk: Walk) -> Place:
    rank = len(shape_of(node.inputs[0]))
    return _without(node, first(node, walk), [node.attributes.get_int("axis", 0) % rank])


def _over_axis(node: ir.Node, walk: Walk) -> Place:
    """Softmax and others that look along one axis."""
    place = first(node, walk)
    axis = node.attributes.get_int("axis", _NORMALIZED.get(node.op_type, -1))
    if axis % len(shape_of(node.inputs[0])) == place.axis:
        raise MixesSteps(f"takes {node.op_type} over the steps (attention does that)")
    return place


def _layer_norm(node: ir.Node, walk: Walk) -> Place:
    place = first(node, walk)
    rank = len(shape_of(node.inputs[0]))
    if place.axis >= node.attributes.get_int("axis", -1) % rank:
        raise MixesSteps("normalizes over the steps")
    return place


def _per_channel(node: ir.Node, walk: Walk) -> Place:
    """BatchNormalization: every place for itself, with numbers for each index of axis 1."""
    place = first(node, walk)
    if place.axis == 1:
        raise MixesSteps("has numbers of its own for each step")
    return place


def _window(node: ir.Node, walk: Walk) -> Place:
    """Convolution and pooling: over time only with a window of one step."""
    place = first(node, walk)
    rank = len(shape_of(node.inputs[0]))
    if place.axis == 0:
        return place
    if place.axis == 1 and "Pool" not in node.op_type:
        raise MixesSteps("takes steps as channels")
    spatial, count = place.axis - 2, rank - 2
    if spatial < 0:
        return place
    kernel = node.attributes.get_ints("kernel_shape")
    if kernel is None and len(node.inputs) > 1:
        kernel = shape_of(node.inputs[1])[2:]
    strides = node.attributes.get_ints("strides", [1] * count)
    pads = node.attributes.get_ints("pads", [0] * 2 * count)
    window = [0 if kernel is None else kernel[spatial], strides[spatial]]
    if window != [1, 1] or pads[spatial] or pads[spatial + count]:
        raise MixesSteps(
            f"looks at several steps at once ({node.op_type} over time, kernel "
            f"{'of all' if kernel is None else kernel[spatial]}); a stream would have to keep the "
            "last ones: export the model with such a buffer as input and output"
        )
    return place


_RULES: dict[str, Callable[[ir.Node, Walk], Where]] = {
    "Transpose": _transpose,
    **dict.fromkeys(("Reshape", "Flatten", "Squeeze", "Unsqueeze"), _reshape),
    "Expand": _expand,
    "MatMul": _matmul,
    "Gemm": _gemm,
    "ArgMax": _arg,
    "ArgMin": _arg,
    **dict.fromkeys(_NORMALIZED, _over_axis),
    "LayerNormalization": _layer_norm,
    "BatchNormalization": _per_channel,
    **dict.fromkeys(
        ("Conv", "ConvTranspose", "MaxPool", "AveragePool", "LpPool", "GlobalAveragePool",
         "GlobalMaxPool"), _window,
    ),
    "Gather": gather_place,
    "Slice": slice_place,
    "Concat": concat_place,
    "Split": split_place,
    "Pad": pad_place,
}  # fmt: skip
