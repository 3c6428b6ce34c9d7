"""Small graphs as ONNX text, and the few steps from text to a quantized graph."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgebm.backends.dialects import Dialect
from edgebm.backends.placement import Ignored, Placement, place
from edgebm.backends.qdq import lower
from edgebm.exec.collect import FloatRunner
from edgebm.ir.canonical import canonicalize
from edgebm.ir.face import face as face_of
from edgebm.ir.model import Model
from edgebm.passes.base import Context, Pass
from edgebm.passes.driver import run_passes
from edgebm.passes.fold_batchnorm import FoldBatchNorm
from edgebm.passes.quantize_activations import QuantizeActivations
from edgebm.passes.quantize_weights import QuantizeWeights
from edgebm.quant.observe import ObserverKind
from edgebm.search.candidates import Face

Array = NDArray[Any]
Feeds = Mapping[str, Array]
_HEADER = '<ir_version: 10, opset_import: ["" : 20]>\n'


def parse(text: str, **weights: Array) -> Model:
    """A canonical model from the text of a graph, without the header."""
    return canonicalize(Model.parse(_HEADER + text, **weights))


def random_model(text: str, seed: int = 0, **shapes: tuple[int, ...]) -> Model:
    """A canonical model with normal weights, scaled so that activations keep their size.

    Names that begin with `v` are variances and positive; vectors are small.
    """
    rng = np.random.default_rng(seed)
    weights = {}
    for label, shape in shapes.items():
        array = rng.normal(size=shape).astype(np.float32)
        if label.startswith("v"):
            array = np.abs(array) + np.float32(0.5)
        elif len(shape) < 2:
            array *= np.float32(0.3)
        else:
            array /= np.float32(np.sqrt(np.prod(shape) / max(shape)))
        weights[label] = array
    return parse(text, **weights)


class Listed:
    """Samples held in a list."""

    def __init__(self, feeds: Sequence[Feeds]) -> None:
        self._feeds = list(feeds)

    def __len__(self) -> int:
        return len(self._feeds)

    def feeds(self, start: int = 0, stop: int | None = None) -> Iterable[Feeds]:
        return iter(self._feeds[start:stop])


def samples(model: Model, count: int = 8, seed: int = 1, rows: int = 3) -> Listed:
    """Normal values for float inputs, row numbers below `rows` for integer ones."""
    rng = np.random.default_rng(seed)
    inputs, _ = face_of(model)
    found = []
    for _ in range(count):
        feeds = {}
        for spec in inputs:
            shape = [dim if isinstance(dim, int) else 4 for dim in spec.shape]
            if np.dtype(spec.dtype).kind == "f":
                feeds[spec.name] = rng.normal(size=shape).astype(spec.dtype)
            else:
                feeds[spec.name] = rng.integers(0, rows, shape).astype(spec.dtype)
        found.append(feeds)
    return Listed(found)


def face(model: Model) -> Face:
    return Face(*(tuple(side) for side in face_of(model)))


def outputs(model: Model, feeds: Feeds) -> dict[str, Array]:
    """The graph's outputs in float on ONNX Runtime."""
    return FloatRunner(model, [v.name for v in model.graph.graph.outputs if v.name]).run(feeds)


def nothing(name: str, op_type: str) -> bool:
    """No node is ignored."""
    return False


def decide(
    model: Model,
    dialects: Sequence[Dialect],
    calibration: Listed,
    *,
    ignored: Ignored = nothing,
    observer: ObserverKind = "mse",
) -> tuple[Model, Context]:
    """Run the steps of the recipe int8."""

    def observe(m: Model) -> frozenset[str]:
        plans = [place(m, dialect, ignored, decided=False) for dialect in dialects]
        return frozenset(v.name for plan in plans for v in plan.points.values() if v.name)

    ctx = Context(samples=calibration, observe=observe, is_ignored=ignored)
    activations = QuantizeActivations(observer=observer)
    steps: list[Pass] = [FoldBatchNorm(), QuantizeWeights(), activations]
    return run_passes(model, steps, ctx)[0], ctx


def quantized(
    model: Model,
    dialect: Dialect,
    *,
    ignored: Ignored = nothing,
    calibration: Listed | None = None,
    observer: ObserverKind = "mse",
) -> tuple[Model, Placement]:
    """From a float graph to Q/DQ nodes for `dialect`."""
    given = calibration or samples(model)
    decided, _ = decide(model, [dialect], given, ignored=ignored, observer=observer)
    return lower(decided, dialect, ignored)


def sqnr_db(want: Array, got: Array) -> float:
    """10 log10(sum want^2 / sum (want - got)^2); equal arrays give 200."""
    ref = want.astype(np.float64)
    noise = float(((ref - got) ** 2).sum())
    return 200.0 if noise == 0 else float(10 * np.log10((ref**2).sum() / noise))
