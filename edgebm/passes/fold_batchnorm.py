"""Fold BatchNormalization into the layer before it."""

from __future__ import annotations

from typing import Any, ClassVar, Literal

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray

from edgebm.ir.annotate import ChannelMoments, set_moments
from edgebm.ir.edit import bypass, const, input_at, set_const, sole_user
from edgebm.ir.model import Model
from edgebm.ir.rescale import scale_channels
from edgebm.ir.traits import channel_axis
from edgebm.passes.base import Context, step

_LAYERS = ("Conv", "ConvTranspose", "Gemm")


@step
class FoldBatchNorm:
    """Remove each BatchNormalization behind a Conv, ConvTranspose or Gemm of constant weights.

    The function of the model is unchanged, to float32 rounding. A BatchNorm that cannot be
    folded stays, and its reason is in the report. The mean and deviation of each channel, which
    the BatchNorm knew from training, stay on the layer's output (`ir/annotate.py`).

    Source:
        Jacob et al. 2018, arXiv:1712.05877, section 3.2.
    """

    kind: Literal["fold_batchnorm"] = "fold_batchnorm"
    needs_samples: ClassVar[bool] = False

    def __call__(self, model: Model, ctx: Context, /) -> Model:
        for bn in model.nodes("BatchNormalization"):
            reason = _fold(bn)
            if reason:
                ctx.skip(self, bn.name, reason)
        return model


def _fold(bn: ir.Node) -> str:
    """Fold one node; return why not, or an empty string when it was folded."""
    x = bn.inputs[0]
    layer = x.producer() if x is not None else None
    if layer is None or layer.op_type not in _LAYERS:
        return f"its input does not come from {', '.join(_LAYERS[:-1])} or {_LAYERS[-1]}"
    if sole_user(layer.outputs[0]) is not bn:
        return f"the {layer.op_type} output is used elsewhere too"
    axis = channel_axis(layer)
    if axis is None:
        return "a grouped ConvTranspose has no one channel axis to scale"
    weight = const(layer.inputs[1])
    gamma, beta, mean, var = (const(v) for v in bn.inputs[1:5])
    if weight is None or gamma is None or beta is None or mean is None or var is None:
        return "a weight or statistic is computed at run time"
    bias, reason = _bias(layer)
    if reason:
        return reason

    epsilon = bn.attributes.get_float("epsilon", 1e-5)
    gain = gamma.astype(np.float64) / np.sqrt(var.astype(np.float64) + epsilon)
    set_const(layer, 1, scale_channels(weight, gain, axis), suffix="folded")
    shift = (bias - mean) * gain + beta
    set_const(layer, 2, shift.astype(weight.dtype), suffix="bias")
    bypass(bn, layer.outputs[0])
    moments = ChannelMoments(beta.astype(np.float64), np.abs(gamma).astype(np.float64))
    set_moments(layer.outputs[0], moments)
    return ""


def _bias(layer: ir.Node) -> tuple[NDArray[Any], str]:
    """The bias as `[C]` or one number for all channels, or why it cannot be folded into."""
    nothing = np.zeros(1, np.float32)
    value = input_at(layer, 2)
    if value is None:
        return nothing, ""
    bias = const(value)
    if bias is None:
        return nothing, "the bias is computed at run time"
    if layer.op_type == "Gemm" and layer.attributes.get_float("beta", 1.0) != 1.0:
        return nothing, "the Gemm scales its bias"
    if bias.ndim == 2 and bias.shape[0] != 1:
        return nothing, "the Gemm adds another bias to each row"
    return bias.reshape(-1), ""
