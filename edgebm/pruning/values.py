"""Where the units of a layer are seen: behind what belongs to it alone."""

from __future__ import annotations

import numpy as np
import onnx_ir as ir

from edgebm.ir.edit import const, inputs, sole_user
from edgebm.pruning.trace import Axis, Trace


def after_maker(trace: Trace, node: ir.Node, axis: Axis) -> Axis:
    """The last value that only `node`'s output and constants make: behind norm and activation.

    `axis` is the one of its output on which it makes units; what is given back is the place of
    the same units. It ends before another computed value joins in, or axes are moved.
    """
    value, place = axis
    while (reader := sole_user(value)) is not None:
        if reader in trace.shuffles or not _keeps(reader, value):
            break
        out = reader.outputs[0]
        behind = place + trace.rank(out) - trace.rank(value)
        if trace.rank(out) < trace.rank(value) or behind >= trace.rank(out):
            break
        if not np.array_equal(trace.roots((out, behind)), trace.roots((value, place))):
            break
        value, place = out, behind
    return value, place


def _keeps(node: ir.Node, value: ir.Value) -> bool:
    """Whether `node` computes each element of its output from that of `value` and constants."""
    if node.op_type == "BatchNormalization":
        return True
    if len(node.outputs) != 1 or node.op_type not in _ELEMENTWISE:
        return False
    return all(given is value or const(given) is not None for given in inputs(node))


_ELEMENTWISE = frozenset(
    {"Add", "Clip", "Elu", "Erf", "Gelu", "HardSigmoid", "HardSwish", "LeakyRelu", "Mish", "Mul",
     "PRelu", "Relu", "Selu", "Sigmoid", "Softplus", "Sub", "Div", "Tanh"}
)  # fmt: skip
