"""Normalization over a batch, a layer, an instance or neighbouring channels."""

from __future__ import annotations

import onnx_ir as ir
import torch
from torch import Tensor
from torch.nn import functional

from edgebm.grad.batch_moments import normalized, with_moments
from edgebm.grad.op import Bound, ByMode, Compute, Family, NotCovered


def _batch(node: ir.Node) -> Bound:
    """With running moments in eval mode, with those of the batch in training."""
    epsilon = node.attributes.get_float("epsilon", 1e-5)
    if node.attributes.get_int("training_mode", 0) == 1:
        return with_moments(epsilon, node.attributes.get_float("momentum", 0.9))

    def answers(x: Tensor, scale: Tensor, bias: Tensor, mean: Tensor, var: Tensor) -> Tensor:
        return functional.batch_norm(x, mean, var, scale, bias, eps=epsilon)

    return ByMode(answers, normalized(node.name or node.op_type, epsilon))


def _layer(node: ir.Node) -> Compute:
    """Over `axis` and all behind it; scale and bias may be smaller than these and broadcast."""
    axis = node.attributes.get_int("axis", -1)
    epsilon = node.attributes.get_float("epsilon", 1e-5)
    moments = len(node.outputs) > 1

    def compute(
        x: Tensor, scale: Tensor, bias: Tensor | None = None
    ) -> Tensor | tuple[Tensor, ...]:
        over = list(x.shape[axis:])
        fits = list(scale.shape) == over and (bias is None or bias.shape == scale.shape)
        w, b = (scale, bias) if fits else (None, None)
        if moments:
            y, mean, deviation = torch.native_layer_norm(x, over, w, b, epsilon)
        else:
            y = functional.layer_norm(x, over, w, b, epsilon)
        if not fits:
            y = y * scale if bias is None else y * scale + bias
        return (y, mean, deviation) if moments else y

    return compute


def _instance(node: ir.Node) -> Compute:
    epsilon = node.attributes.get_float("epsilon", 1e-5)

    def compute(x: Tensor, scale: Tensor, bias: Tensor) -> Tensor:
        # The function in torch.nn refuses channels of one element.
        return torch.instance_norm(x, scale, bias, None, None, True, 0.0, epsilon, False)  # noqa: FBT003

    return compute


def _lp(node: ir.Node) -> Compute:
    """A row of zeros stays zeros."""
    axis, p = node.attributes.get_int("axis", -1), node.attributes.get_int("p", 2)
    if p not in (1, 2):
        raise NotCovered(f"p is {p}: the standard has 1 and 2")

    def compute(x: Tensor) -> Tensor:
        norm = torch.linalg.vector_norm(x, p, axis, keepdim=True)
        return x / torch.where(norm == 0, torch.ones_like(norm), norm)

    return compute


def _local_response(node: ir.Node) -> Compute:
    """Give x / (k + alpha / size * sum of x^2 over `size` channels around)^beta.

    Source:
        Krizhevsky et al. 2012, "ImageNet classification with deep convolutional neural
        networks", section 3.3.
    """
    size = node.attributes.get_int("size", 1)
    k, alpha, beta = (
        node.attributes.get_float(key, value)
        for key, value in (("bias", 1.0), ("alpha", 1e-4), ("beta", 0.75))
    )
    # Of an even number the larger half lies behind.
    around = [0, 0, (size - 1) // 2, size - 1 - (size - 1) // 2]

    def compute(x: Tensor) -> Tensor:
        squares = functional.pad(x.square().flatten(2).unsqueeze(1), around)
        mean = functional.avg_pool2d(squares, (size, 1), stride=1).squeeze(1).reshape(x.shape)
        return x / (k + alpha * mean).pow(beta)

    return compute


def _mean_variance(node: ir.Node) -> Compute:
    axes = list(node.attributes.get_ints("axes", (0, 2, 3)))

    def compute(x: Tensor) -> Tensor:
        centered = x - x.mean(axes, keepdim=True)
        return centered / (centered.square().mean(axes, keepdim=True).sqrt() + 1e-9)

    return compute


OPS: Family = {
    "BatchNormalization": _batch,
    "InstanceNormalization": _instance,
    "LRN": _local_response,
    "LayerNormalization": _layer,
    "LpNormalization": _lp,
    "MeanVarianceNormalization": _mean_variance,
}
