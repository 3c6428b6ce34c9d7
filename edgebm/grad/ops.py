"""Every op a trainable graph may hold. A new family is one file, one import and one line here."""

from __future__ import annotations

from collections.abc import Iterable

import onnx_ir as ir

from edgebm.errors import UnsupportedModel
from edgebm.grad import (
    activation,
    convolution,
    elementwise,
    filled,
    gather,
    linear,
    norm,
    padding,
    pooling,
    quantize,
    recurrent,
    reduction,
    resize,
    shape,
)
from edgebm.grad.op import Bound, Family, NotCovered

OPS: Family = {
    **activation.OPS,
    **convolution.OPS,
    **elementwise.OPS,
    **filled.OPS,
    **gather.OPS,
    **linear.OPS,
    **norm.OPS,
    **padding.OPS,
    **pooling.OPS,
    **quantize.OPS,
    **recurrent.OPS,
    **reduction.OPS,
    **resize.OPS,
    **shape.OPS,
}


def bind(nodes: Iterable[ir.Node], source: str = "") -> dict[ir.Node, Bound]:
    """The function of each node.

    Raises:
        UnsupportedModel: every node whose op, or form of it, is in no table; all at once.
    """
    bound: dict[ir.Node, Bound] = {}
    faults = []
    for node in nodes:
        rule = OPS.get(node.op_type) if node.domain in ("", "ai.onnx") else None
        if rule is None:
            faults.append(f"{node.op_type} '{node.name}': no such op among those with a gradient")
            continue
        try:
            bound[node] = rule(node)
        except NotCovered as why:
            faults.append(f"{node.op_type} '{node.name}': {why}")
    if faults:
        raise UnsupportedModel(
            f"{source or 'the model'} cannot be trained; {len(faults)} fault(s):\n"
            + "\n".join(f"  {fault}" for fault in faults),
            hint="leave out the steps that train",
            details={"faults": faults},
        )
    return bound
