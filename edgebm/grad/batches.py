"""Samples as batches of tensors."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor


def stacked(samples: Iterable[Mapping[str, NDArray[Any]]]) -> dict[str, Tensor]:
    """Samples of equal shapes, joined along axis 0: each input as one tensor [N, ...]."""
    columns: dict[str, list[NDArray[Any]]] = {}
    for feeds in samples:
        for label, array in feeds.items():
            columns.setdefault(label, []).append(array)
    return {label: torch.from_numpy(np.concatenate(parts)) for label, parts in columns.items()}
