"""What a BatchNormalization knew of a value's channels, followed through what lies behind it."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray

from edgebm.ir.annotate import ChannelMoments, moments_of
from edgebm.ir.edit import input_at
from edgebm.ir.moves import carry_on, upper_limit

F64 = NDArray[np.float64]
_KEEP = frozenset({"Identity", "Dropout", "GlobalAveragePool"})
_FLATTEN = frozenset({"Flatten", "Reshape", "Squeeze"})
_erf: Callable[[F64], F64] = np.vectorize(math.erf, otypes=[np.float64])


def mean_of(value: ir.Value | None) -> F64 | None:
    """Mean of each channel of `value` along axis 1, shape [C], or None where nothing tells.

    The output of a BatchNormalization counts as normal; a ReLU or ReLU6 behind it cuts that.

    Source:
        Nagel et al. 2019, arXiv:1906.04721, appendix C (mean of the clipped normal).
    """
    if value is None:
        return None
    if (moments := moments_of(value)) is not None:
        return moments.mean
    node = value.producer()
    if node is None:
        return None
    before = input_at(node, 0)
    if node.op_type in _KEEP:
        return mean_of(before)
    if node.op_type in _FLATTEN:
        mean, (axis, repeat) = mean_of(before), carry_on(node, 1) or (None, 1)
        return np.repeat(mean, repeat) if mean is not None and axis == 1 else None
    high = math.inf if node.op_type == "Relu" else upper_limit(node)
    normal = moments_of(before)
    return None if high is None or normal is None else clipped_mean(normal, 0.0, high)


def clipped_mean(moments: ChannelMoments, low: float, high: float) -> F64:
    """E[min(max(x, low), high)] for normal x of these moments, shape [C]."""
    mean, std = moments.mean, np.maximum(moments.std, 1e-12)
    a, b = (low - mean) / std, (high - mean) / std
    below, above = _cdf(a), 1.0 - _cdf(b)
    inside = mean * (1.0 - below - above) + std * (_pdf(a) - _pdf(b))
    return low * below + inside + (high * above if math.isfinite(high) else 0.0)


def _pdf(z: F64) -> F64:
    return np.asarray(np.exp(-0.5 * z**2) / math.sqrt(2 * math.pi))


def _cdf(z: F64) -> F64:
    return 0.5 * (1.0 + _erf(z / math.sqrt(2)))
