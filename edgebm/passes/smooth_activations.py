"""Move outlier channels of an activation into the weights behind it."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import islice
from typing import Annotated, Any, ClassVar, Literal

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray
from pydantic import Field

from edgebm.errors import DataError
from edgebm.exec.collect import collect
from edgebm.ir.edit import add_const, add_node, const, main_graph, name, set_const
from edgebm.ir.model import Model
from edgebm.ir.traits import activation_inputs, weight_index
from edgebm.passes.base import Context, step

F32 = NDArray[np.float32]
# Outlier channels are a trait of the weights: a few samples show which they are.
_SAMPLES = 64


@step
class SmoothActivations:
    """Divide input channel k of a group of products by s[k] and multiply their weights by it.

    s[k] = max|x[k]|^alpha / max|w[k]|^(1 - alpha), with x over the calibration samples and w
    over all products that read the same value. The function of the model is unchanged, to
    float32 rounding, but one scale for the whole activation no longer wastes its levels on a
    few channels. Groups without such channels are left alone, and so are products of one
    vector a sample (the head of a CNN): the division costs time.

    Source:
        Xiao et al. 2023, "SmoothQuant", arXiv:2211.10438, section 4 (equation 4).
    """

    kind: Literal["smooth_activations"] = "smooth_activations"
    needs_samples: ClassVar[bool] = True
    alpha: Annotated[float, Field(ge=0.0, le=1.0)] = 0.8
    outlier: Annotated[float, Field(ge=1.0)] = 4.0

    def __call__(self, model: Model, ctx: Context, /) -> Model:
        groups = _groups(model, ctx)
        if not groups:
            return model
        if ctx.samples is None or len(ctx.samples) == 0:
            raise DataError("smoothing needs calibration samples", hint="give them with -d")
        peaks = {label: ChannelPeak() for label in groups}
        stride = -(-len(ctx.samples) // _SAMPLES)
        done, total = 0, -(-len(ctx.samples) // stride)

        def advance() -> None:
            nonlocal done
            done += 1
            ctx.progress(self.kind, done, total)

        sinks = {label: peak.update for label, peak in peaks.items()}
        collect(model, islice(ctx.samples.feeds(), 0, None, stride), sinks, advance)
        for label, nodes in groups.items():
            reason = self._smooth(nodes, peaks[label].result)
            if reason:
                ctx.skip(self, nodes[0].name, reason)
        return model

    def _smooth(self, nodes: Sequence[ir.Node], activation: F32) -> str:
        """Smooth one group; return why not, or an empty string."""
        spread = float(activation.max() / max(float(np.median(activation)), 1e-30))
        if spread < self.outlier:
            return f"no channel of its input stands out (largest {spread:.1f} times the median)"
        weights = [_rows(node) for node in nodes]
        weight = np.max([np.abs(w).max(axis=1) for w in weights], axis=0)
        factor = np.ones_like(activation)
        used = (activation > 0) & (weight > 0)
        factor[used] = activation[used] ** self.alpha / weight[used] ** (1 - self.alpha)
        for node, rows in zip(nodes, weights, strict=True):
            scaled = (rows * factor[:, None]).astype(np.float32)
            set_const(node, 1, scaled.T if _is_transposed(node) else scaled, suffix="smoothed")
        value = nodes[0].inputs[0]
        assert value is not None
        _divide(value, nodes, factor)
        return ""


class ChannelPeak:
    """Largest magnitude of each channel of the last axis; `result` has shape [C]."""

    def __init__(self) -> None:
        self.result: F32 = np.zeros((), np.float32)

    def update(self, batch: NDArray[Any], /) -> None:
        """Take in `batch` [..., C].

        Raises:
            ValueError: it holds NaN or infinity.
        """
        peak = np.abs(batch.reshape(-1, batch.shape[-1])).max(axis=0, initial=0.0)
        if not np.isfinite(peak).all():
            raise ValueError("the activation has NaN or infinite values")
        self.result = np.asarray(np.maximum(self.result, peak), np.float32)


def _groups(model: Model, ctx: Context) -> dict[str, list[ir.Node]]:
    """Products with a constant float32 matrix on the right, by the value they read."""
    groups: dict[str, list[ir.Node]] = {}
    for node in model.nodes("MatMul", "Gemm"):
        if weight_index(node) != 1 or activation_inputs(node) != [0]:
            continue
        weight, value = const(node.inputs[1]), node.inputs[0]
        if weight is None or weight.ndim != 2 or weight.dtype != np.float32 or value is None:
            continue
        if value.shape is None or len(value.shape) < 3:
            continue
        if node.attributes.get_int("transA", 0) or ctx.is_ignored(node.name or "", node.op_type):
            continue
        groups.setdefault(name(value), []).append(node)
    return groups


def _is_transposed(node: ir.Node) -> bool:
    return node.op_type == "Gemm" and node.attributes.get_int("transB", 0) == 1


def _rows(node: ir.Node) -> F32:
    """The weight as [K, N]."""
    weight = const(node.inputs[1])
    assert weight is not None
    return weight.T if _is_transposed(node) else weight


def _divide(value: ir.Value, nodes: Sequence[ir.Node], factor: F32) -> None:
    """Divide what `nodes` read by `factor`: in a LayerNormalization in front, or by a Mul."""
    producer = value.producer()
    readers = {use.node for use in value.uses()}
    inverse = (1.0 / factor).astype(np.float32)
    if (
        producer is not None
        and producer.op_type == "LayerNormalization"
        and readers == set(nodes)
        and not value.is_graph_output()
        and all(const(v) is not None for v in producer.inputs[1:])
    ):
        for index in range(1, len(producer.inputs)):
            old = const(producer.inputs[index])
            assert old is not None
            set_const(producer, index, (old * inverse).astype(np.float32), suffix="smoothed")
        return
    label = f"{name(value)}.smooth"
    constant = add_const(main_graph(nodes[0]), f"{label}.inverse", inverse)
    divided = add_node(nodes[0], "Mul", [value, constant], label=label)
    divided.type, divided.shape = value.type, value.shape
    for node in nodes:
        node.replace_input_with(0, divided)
