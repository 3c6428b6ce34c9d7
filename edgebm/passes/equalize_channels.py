"""Even out the channels of an activation by folding factors into the layers around it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, ClassVar, Literal

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray
from pydantic import Field

from edgebm.exec.collect import collect
from edgebm.ir.channels import ChannelGroup, channel_groups
from edgebm.ir.edit import name
from edgebm.ir.model import Model
from edgebm.ir.rescale import divide, input_columns
from edgebm.passes.base import Context, step
from edgebm.quant.channels import ChannelStatistics
from edgebm.quant.equalize import Product, choose_factor

F64 = NDArray[np.float64]


@step
class EqualizeChannels:
    """Cross-layer equalization: divide channel c between two layers by s[c], in both weights.

    Between the layers may lie what commutes with a positive factor: ReLU, pooling, Add, reshapes.
    s[c] = peak[c]^alpha / demand[c]^(1 - alpha), with the channel's largest value on the
    calibration samples and its largest weight in what reads it. Groups of layers whose expected
    rounding noise would not shrink to 1 / `gain` are left alone. The function of the model is
    unchanged, to float32 rounding.

    A ReLU6 in between keeps its limit. Channels that reach it on the samples are not rescaled;
    of the others none is raised so far that its largest value would be cut off. What no sample
    reached may be, as by the ranges that are calibrated from the same samples.

    Source:
        Nagel et al. 2019, "Data-free quantization", arXiv:1906.04721, section 4.1.
    """

    kind: Literal["equalize_channels"] = "equalize_channels"
    needs_samples: ClassVar[bool] = True
    alpha: Annotated[float, Field(ge=0.0, le=1.0)] = 0.5
    # The expectation takes all outputs of a layer for equally important: where it promises less
    # than this, the measured error of trained CNNs went either way.
    gain: Annotated[float, Field(ge=1.0)] = 2.0

    def __call__(self, model: Model, ctx: Context, /) -> Model:
        groups = []
        for group in channel_groups(model):
            if reason := group.obstacle or _all_in_float(group, ctx):
                ctx.skip(self, group.label, reason)
            else:
                groups.append(group)
        if not groups:
            return model
        samples = ctx.given("equalization")
        watched = {name(v): v for group in groups for v in _watched(group)}
        stats = {
            label: ChannelStatistics(where.axis, where.repeat)
            for group in groups
            for label in map(name, _watched(group))
            for where in [group.values[watched[label]]]
        }
        sinks = {label: stat.update for label, stat in stats.items()}
        collect(model, samples.feeds(), sinks, ctx.counter(self.kind, len(samples)))
        for group in groups:
            factor, ratio = choose_factor(
                _products(group, stats), [self.alpha], least=_least_factor(group, stats)
            )
            if ratio * self.gain <= 1:
                divide(group, factor)
            else:
                ctx.skip(self, group.label, _even(ratio))
        return model


def _all_in_float(group: ChannelGroup, ctx: Context) -> str:
    """Why a group is left alone of which no layer that reads it will be quantized."""
    nodes = [reader.node for reader in group.readers]
    if all(ctx.is_ignored(node.name or "", node.op_type) for node in nodes):
        return "every layer that reads it is on the ignored list"
    return ""


def _even(ratio: float) -> str:
    """Why a group is left alone, whose noise would shrink to `ratio`."""
    return f"its channels are even enough: {max(0.0, 1 - ratio):.0%} less noise is expected"


def _watched(group: ChannelGroup) -> list[ir.Value]:
    """What its layers read, and what its limits cut."""
    read = [reader.node.inputs[0] for reader in group.readers]
    return list(dict.fromkeys([*(v for v in read if v is not None), *group.limits]))


def _products(group: ChannelGroup, stats: dict[str, ChannelStatistics]) -> Sequence[Product]:
    products = []
    for reader in group.readers:
        value = reader.node.inputs[0]
        assert value is not None
        seen = stats[name(value)]
        products.append(Product(input_columns(reader, group.channels), seen.peak, seen.power))
    return products


def _least_factor(group: ChannelGroup, stats: dict[str, ChannelStatistics]) -> F64 | None:
    """How far each channel can be raised below every limit in the group; 1 where not at all."""
    if not group.limits:
        return None
    parts = [stats[name(value)].peak / limit for value, limit in group.limits.items()]
    return np.asarray(np.minimum(np.max(parts, axis=0), 1.0))
