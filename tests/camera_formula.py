"""What docs/how-to/preprocessing.md says that becomes of a frame, in numpy."""

from __future__ import annotations

import numpy as np
from graphs import Array

from edgebm.data.preprocess import Preprocess


def lerp(x: Array, axis: int, after: int) -> Array:
    """Bilinear along one axis: pixel i looks at (i + 0.5) * before / after - 0.5, held inside."""
    before = x.shape[axis]
    at = np.clip((np.arange(after) + 0.5) * before / after - 0.5, 0, before - 1)
    low = np.floor(at).astype(int)
    high = np.minimum(low + 1, before - 1)
    share = (at - low).reshape([-1 if i == axis else 1 for i in range(x.ndim)])
    return x.take(low, axis) * (1 - share) + x.take(high, axis) * share


def formula(frames: Array, how: Preprocess) -> Array:
    """Cut, resize, order of channels, (x / 255 - mean) / std, order of axes; in float64."""
    x = frames.astype(np.float64)
    if how.crop:
        high, wide = x.shape[1:3]
        part = min(high / how.size[0], wide / how.size[1]) * 224 / 256
        height, width = round(how.size[0] * part), round(how.size[1] * part)
        top, left = (high - height) // 2, (wide - width) // 2
        x = x[:, top : top + height, left : left + width]
    x = lerp(lerp(x, 1, how.size[0]), 2, how.size[1])
    if how.source_color and how.source_color != how.color:
        x = x[..., ::-1]
    x = (x / 255 - np.array(how.mean)) / np.array(how.std)
    return x.transpose(0, 3, 1, 2) if how.layout == "NCHW" else x
