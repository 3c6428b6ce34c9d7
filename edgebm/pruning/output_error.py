"""How far the outputs of a changed model are from those of the original."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgebm.exec.collect import Feeds, FloatRunner
from edgebm.ir.edit import name
from edgebm.ir.model import Model
from edgebm.ir.traits import is_float


class OutputError:
    """Noise over signal at the outputs of a model, on a few samples that are held in memory.

    Squared differences over squares for each float output, and the mean over these. A model
    without any counts the elements that differ. An output that is not finite or has another
    shape counts as 1 on that sample, as one that is all zeros does.
    """

    def __init__(self, model: Model, samples: Sequence[Feeds]) -> None:
        outputs = model.graph.graph.outputs
        self._is_float = any(is_float(value) for value in outputs)
        self._labels = [name(v) for v in outputs if is_float(v) or not self._is_float]
        self._samples = samples
        runner = self._runner(model)
        self._want = [runner.run(feeds) for feeds in samples]

    def _runner(self, model: Model) -> FloatRunner:
        return FloatRunner(model, self._labels, fused=True)

    def __call__(self, model: Model) -> float:
        """The error of a model with the same inputs and outputs: 0 for equal ones.

        Raises:
            BackendFailed: ONNX Runtime does not load it.
            DataError: it does not run it.
        """
        runner = self._runner(model)
        parts = dict.fromkeys(self._labels, (0.0, 0.0))
        for feeds, want in zip(self._samples, self._want, strict=True):
            got = runner.run(feeds)
            for label, (noise, signal) in parts.items():
                added = self._part(got[label], want[label])
                parts[label] = (noise + added[0], signal + added[1])
        tiny = np.finfo(np.float64).tiny
        shares = [noise / max(signal, tiny) for noise, signal in parts.values()]
        return float(np.mean(shares)) if shares else 0.0

    def _part(self, got: NDArray[Any], want: NDArray[Any]) -> tuple[float, float]:
        """Noise and signal of one output on one sample."""
        if not self._is_float:
            same = got.shape == want.shape
            wrong = int(np.count_nonzero(got != want)) if same else want.size
            return float(wrong), float(want.size)
        signal = float(np.square(want, dtype=np.float64).sum())
        if got.shape != want.shape or not np.isfinite(got).all():
            return signal, signal
        return float(np.square(got.astype(np.float64) - want).sum()), signal
