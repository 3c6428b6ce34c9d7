"""Round decided weights by what their layers read, and not each number to its nearest."""

from __future__ import annotations

from typing import Annotated, ClassVar, Literal

import numpy as np
import onnx_ir as ir
from pydantic import Field

from edgebm.errors import PassError
from edgebm.exec.collect import collect
from edgebm.ir.annotate import quant_of, set_quant
from edgebm.ir.edit import const, name, set_const
from edgebm.ir.model import Model
from edgebm.ir.traits import activation_inputs, is_transposed, weight_index
from edgebm.passes.base import Context, step
from edgebm.quant.gptq import F64, Hessian, gptq
from edgebm.quant.params import QuantParams

_Layer = tuple[ir.Node, ir.Value]  # a product, and the activation it reads


@step
class Gptq:
    """Replace weights that were decided on by values on their grid that change outputs least.

    Covers MatMul and Gemm with a constant matrix. Their inputs are those of the float model,
    collected in one sweep; memory grows with the width of the layers and not with the samples.
    Without samples this step is left out, and weights round to the nearest.

    `damping` is added to the diagonal of the second moments, relative to its mean; `act_order`
    rounds the input channels that carry most first.

    Source:
        Frantar et al. 2023, "GPTQ", arXiv:2210.17323, section 3.3 (algorithm 1).
    """

    kind: Literal["gptq"] = "gptq"
    needs_samples: ClassVar[bool] = True
    damping: Annotated[float, Field(gt=0.0, le=1.0)] = 0.01
    act_order: bool = True

    def __call__(self, model: Model, ctx: Context, /) -> Model:
        groups = _groups(model, ctx)
        if not groups:
            ctx.skip(self, None, "no weight of a matrix product was decided on before")
            return model
        samples = ctx.given("GPTQ")
        seen = {name(read): Hessian() for layers in groups.values() for _, read in layers}
        sinks = {label: hessian.update for label, hessian in seen.items()}
        collect(model, samples.feeds(), sinks, ctx.counter(self.kind, len(samples)))
        for layers in groups.values():
            self._round(layers, seen)
        return model

    def _round(self, layers: list[_Layer], seen: dict[str, Hessian]) -> None:
        """Round one weight for all products that read it."""
        first = layers[0][0]
        params, weight = quant_of(first.inputs[1]), const(first.inputs[1])
        assert params is not None
        assert weight is not None
        flipped = is_transposed(first)
        try:
            rounded = gptq(
                weight.T if flipped else weight,
                _flipped(params) if flipped else params,
                _moments([seen[name(read)] for _, read in layers]),
                damping=self.damping,
                act_order=self.act_order,
            )
        except ValueError as cause:
            raise PassError(str(cause), step=self.kind, node=first.name or "?") from cause
        others = [node for node, _ in layers[1:]]
        for node in others:
            node.replace_input_with(1, None)  # so that the old array goes, and its name stays
        fresh = set_const(first, 1, rounded.T.copy() if flipped else rounded, suffix="rounded")
        for node in others:
            node.replace_input_with(1, fresh)
        set_quant(fresh, params)


def _groups(model: Model, ctx: Context) -> dict[ir.Value, list[_Layer]]:
    """Products with a decided matrix on the right, by that matrix."""
    groups: dict[ir.Value, list[_Layer]] = {}
    for node in model.nodes("MatMul", "Gemm"):
        read, value = node.inputs[0], node.inputs[1]
        if ctx.is_ignored(node.name or "", node.op_type):
            continue
        if weight_index(node) != 1 or activation_inputs(node) != [0] or quant_of(value) is None:
            continue
        weight = const(value)
        if weight is None or weight.ndim != 2 or node.attributes.get_int("transA", 0) == 1:
            continue
        assert read is not None
        assert value is not None
        groups.setdefault(value, []).append((node, read))
    return groups


def _moments(seen: list[Hessian]) -> F64:
    """The mean over the rows of all layers that share a weight."""
    total = np.zeros_like(seen[0].result)
    for hessian in seen:
        total += hessian.result * hessian.rows
    return total / max(1, sum(hessian.rows for hessian in seen))


def _flipped(params: QuantParams) -> QuantParams:
    """Parameters of a matrix as those of its transpose."""
    axis = None if params.axis is None else 1 - params.axis
    scale, zero = params.scale, params.zero_point
    if params.block_size is not None:
        scale, zero = scale.T, zero.T
    return QuantParams(params.bits, params.signed, scale, zero, axis, params.block_size)
