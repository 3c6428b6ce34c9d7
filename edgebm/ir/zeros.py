"""Weights that were made sparse, and must stay so in training."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
from numpy.typing import NDArray

from edgebm.ir.edit import const
from edgebm.ir.model import Model

_SPARSE = 0.25  # of a weight; trained weights are hardly ever zero by chance


def zeros_to_keep(model: Model, names: Iterable[str]) -> dict[str, NDArray[np.bool_]]:
    """Masks of those of the weights `names` that were made sparse: False where they stay zero.

    Such a weight has two axes or more, and zeros in a quarter of its places or more, but not in
    all of them.
    """
    found = {}
    for label in sorted(names):
        array = const(model.graph.graph.initializers[label])
        assert array is not None
        zeros = float(np.mean(array == 0))
        if array.ndim > 1 and _SPARSE <= zeros < 1:
            found[label] = array != 0
    return found
