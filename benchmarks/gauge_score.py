"""What the network of ``gauge.py`` measures, and how well; without torch."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

SIDE = 56  # pixels of the net's input
QUANTITIES = ("x", "y", "density", "diameter", "area")


def explained(outputs: NDArray[np.float32], labels: NDArray[np.float32]) -> float:
    """100 times the share of the labels' variance that is explained, mean over the columns."""
    error = ((outputs - labels) ** 2).mean(0) / labels.var(0)
    return float(100 * (1 - error).mean())
