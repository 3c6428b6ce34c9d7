"""Move outlier channels of an activation into the weights behind it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Any, ClassVar, Literal

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray
from pydantic import Field

from edgebm.exec.collect import collect
from edgebm.ir.edit import add_const, add_node, const, main_graph, name, set_const
from edgebm.ir.model import Model
from edgebm.ir.traits import activation_inputs, is_transposed, weight_index
from edgebm.passes.base import Context, spread_out, step
from edgebm.quant.channels import ChannelStatistics, RowSample
from edgebm.quant.smooth import best_alpha, smoothing_factor

F64 = NDArray[np.float64]
F32 = NDArray[np.float32]
# Outlier channels are a trait of the weights: a few samples show which they are.
_SAMPLES = 64
_ROWS = 512  # inputs of each product that exponents are compared on
# Of the error without smoothing: a division that buys less is not worth its time.
_WORTH = 0.9


@step
class SmoothActivations:
    """Divide input channel k of a group of products by s[k] and multiply their weights by it.

    s[k] = max|x[k]|^alpha / max|w[k]|^(1 - alpha), with x over the calibration samples and w
    over all products that read the same value. The function of the model is unchanged, to
    float32 rounding, but one scale for the whole activation no longer wastes its levels on a
    few channels. Products of one vector a sample (the head of a CNN) are left alone: the
    division costs time.

    With a number for `alpha`, groups whose largest channel is less than `outlier` times the
    median are left alone. `alpha: search` tries 0.3 to 1.0 for each group, compares the rounded
    products with the float ones on 512 inputs, and leaves a group alone where none takes a tenth
    off the error.

    Source:
        Xiao et al. 2023, "SmoothQuant", arXiv:2211.10438, section 4 (equation 4); Lin et al.
        2024, "AWQ", arXiv:2306.00978, section 3.2 (search by the output's error).
    """

    kind: Literal["smooth_activations"] = "smooth_activations"
    needs_samples: ClassVar[bool] = True
    alpha: Annotated[float, Field(ge=0.0, le=1.0)] | Literal["search"] = 0.8
    outlier: Annotated[float, Field(ge=1.0)] = 4.0

    def __call__(self, model: Model, ctx: Context, /) -> Model:
        groups = _groups(model, ctx)
        if not groups:
            return model
        feeds, total = spread_out(ctx.given("smoothing"), _SAMPLES)
        seen = {label: _Seen(self.alpha == "search", ctx.seed) for label in groups}
        sinks = {label: each.update for label, each in seen.items()}
        collect(model, feeds, sinks, ctx.counter(self.kind, total))
        for label, nodes in groups.items():
            weights = [_rows(node) for node in nodes]
            alpha, reason = self._exponent(seen[label], weights)
            if alpha is None:
                ctx.skip(self, nodes[0].name, reason)
            else:
                _smooth(
                    nodes, weights, smoothing_factor(seen[label].channels.peak, weights, alpha)
                )
        return model

    def _exponent(self, seen: _Seen, weights: Sequence[F32]) -> tuple[float | None, str]:
        """What to smooth a group with, or None and why not at all."""
        peak = seen.channels.peak
        if self.alpha == "search":
            alpha, ratio = best_alpha(seen.rows(), peak, weights)
            if ratio > _WORTH:
                return None, f"it would take only {1 - ratio:.0%} off the error of its products"
            return alpha, ""
        spread = float(peak.max() / max(float(np.median(peak)), 1e-30))
        if spread < self.outlier:
            return None, (
                f"no channel of its input stands out (largest {spread:.1f} times the median)"
            )
        return self.alpha, ""


class _Seen:
    """The channels of one activation, and some of its rows if they are asked for."""

    def __init__(self, keep_rows: bool, seed: int) -> None:  # noqa: FBT001 - the one choice
        self.channels = ChannelStatistics()
        self._sample = RowSample(_ROWS, seed) if keep_rows else None

    def update(self, batch: NDArray[Any], /) -> None:
        """Raises ValueError where `batch` holds NaN or infinity."""
        self.channels.update(batch)
        if self._sample is not None:
            self._sample.update(batch)

    def rows(self) -> F32:
        assert self._sample is not None
        return self._sample.rows


def _smooth(nodes: Sequence[ir.Node], weights: Sequence[F32], factor: F64) -> None:
    """Multiply the weights of `nodes` by `factor`, and divide what they read by it."""
    for node, rows in zip(nodes, weights, strict=True):
        scaled = (rows * factor[:, None]).astype(np.float32)
        set_const(node, 1, scaled.T if is_transposed(node) else scaled, suffix="smoothed")
    value = nodes[0].inputs[0]
    assert value is not None
    _divide(value, nodes, factor)


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


def _rows(node: ir.Node) -> F32:
    """The weight as [K, N]."""
    weight = const(node.inputs[1])
    assert weight is not None
    return weight.T if is_transposed(node) else weight


def _divide(value: ir.Value, nodes: Sequence[ir.Node], factor: F64) -> None:
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
