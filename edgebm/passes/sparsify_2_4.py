"""Set two of four neighbouring weights to zero, in the pattern that tensor cores skip."""

from __future__ import annotations

from typing import Annotated, ClassVar, Literal

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray
from pydantic import Field

from edgebm.exec.collect import collect
from edgebm.ir.edit import Array, const, name, replace_const
from edgebm.ir.model import Model
from edgebm.ir.traits import activation_inputs, is_float_const
from edgebm.passes.base import Context, spread_out, step
from edgebm.pruning.two_four import SPARSE_OPS, is_two_of_four, kept_two_of_four, sum_axis
from edgebm.quant.channels import ChannelStatistics

F64 = NDArray[np.float64]
_Layers = dict[ir.Value, list[ir.Node]]


@step
class SparsifyTwoFour:
    """Of four neighbours along the input axis of a weight, set the two that matter least to zero.

    Only TensorRT on GPUs of Ampere and later gains by it: CPU runtimes multiply with the zeros
    and take as long as before. Covers Conv, Gemm and MatMul with a constant matrix that sums over
    a multiple of four inputs. The zeros stay through `distill`, and through the steps that fold,
    equalize, smooth and quantize.

    `importance` ranks by |w| ("magnitude"), or by |w| times the norm of what it multiplies on
    `samples` samples ("activation"). The model answers worse until `distill` has taught it.

    Source:
        Mishra et al. 2021, arXiv:2104.08378, section 3 (the pattern); Sun et al. 2024, "A simple
        and effective pruning approach for large language models", arXiv:2306.11695, section 3
        (the norms).
    """

    kind: Literal["sparsify_2_4"] = "sparsify_2_4"
    needs_samples: ClassVar[bool] = True
    importance: Literal["magnitude", "activation"] = "activation"
    samples: Annotated[int, Field(ge=1)] = 128

    def __call__(self, model: Model, ctx: Context, /) -> Model:
        layers = self._layers(model, ctx)
        if not layers:
            ctx.skip(self, None, "no Conv, Gemm or MatMul has a dense matrix to make sparse")
            return model
        powers = self._powers(model, layers, ctx) if self.importance == "activation" else {}
        total = 0
        for value, nodes in layers.items():
            weight = const(value)
            assert weight is not None
            score = np.square(weight, dtype=np.float64)
            if powers:
                score *= sum(_power(weight, node, powers[_read(node)]) for node in nodes)
            kept = kept_two_of_four(score, sum_axis(nodes[0]))
            replace_const(value, np.where(kept, weight, np.zeros((), weight.dtype)))
            total += weight.size
        ctx.notes.append(
            f"{len(layers)} weights were made 2:4 sparse, half of {total:,} numbers out of "
            f"{model.param_count():,}; only TensorRT on GPUs of Ampere and later is faster by it"
        )
        return model

    def _layers(self, model: Model, ctx: Context) -> _Layers:
        """The dense weights that can be made sparse, each with the layers that read it."""
        layers: _Layers = {}
        for node in model.nodes(*SPARSE_OPS):
            value = node.inputs[1]
            if value is None or not is_float_const(value) or activation_inputs(node) != [0]:
                continue
            if ctx.is_ignored(node.name or "", node.op_type):
                continue
            weight = const(value)
            assert weight is not None
            if reason := _why_not(node, weight) or _other_reader(value, node, ctx):
                ctx.skip(self, node.name, reason)
            elif not is_two_of_four(weight, sum_axis(node)):
                layers.setdefault(value, []).append(node)
        return layers

    def _powers(self, model: Model, layers: _Layers, ctx: Context) -> dict[str, F64]:
        """The mean square of each channel of what the layers read, by the name of the value."""
        samples = ctx.given("making weights sparse by what they multiply")
        feeds, total = spread_out(samples, self.samples)
        seen = {_read(n): ChannelStatistics(_axis(n)) for nodes in layers.values() for n in nodes}
        sinks = {label: each.update for label, each in seen.items()}
        collect(model, feeds, sinks, ctx.counter(self.kind, total))
        return {label: each.power for label, each in seen.items()}


def _why_not(node: ir.Node, weight: Array) -> str:
    """What is in the way of making a layer's weight sparse; empty where nothing is."""
    if weight.ndim < 2 or (weight.ndim != 2 and node.op_type != "Conv"):
        return "its weight is not one matrix"
    size = weight.shape[sum_axis(node)]
    return f"it sums over {size} inputs, which is no multiple of 4" if size % 4 else ""


def _other_reader(value: ir.Value, node: ir.Node, ctx: Context) -> str:
    """Who else reads the weight, and in another way."""
    for use in value.uses():
        other = use.node
        alike = other.op_type in SPARSE_OPS and use.idx == 1 and sum_axis(other) == sum_axis(node)
        if not alike or ctx.is_ignored(other.name or "", other.op_type):
            return f"its weight is read by '{other.name}' too, which needs it whole"
    return ""


def _read(node: ir.Node) -> str:
    value = node.inputs[0]
    assert value is not None
    return name(value)


def _axis(node: ir.Node) -> int:
    """The axis of the input that the layer sums over."""
    if node.op_type == "Conv":
        return 1
    return 0 if node.attributes.get_int("transA", 0) else -1


def _power(weight: Array, node: ir.Node, power: F64) -> F64:
    """The mean squares of the channels, laid out so that they multiply the weight."""
    if node.op_type != "Conv":
        return power[None, :] if sum_axis(node) == 1 else power[:, None]
    groups = node.attributes.get_int("group", 1)
    rows = np.repeat(power.reshape(groups, -1), len(weight) // groups, axis=0)
    return rows.reshape(*rows.shape, *[1] * (weight.ndim - 2))
