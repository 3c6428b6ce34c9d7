"""Whether an exported graph answers as the model that it was made from, on random numbers.

Some exports fix what they were traced with (Keras on torch: the number of steps), or leave
operations out, and say nothing.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray

from edgebm.errors import ModelError
from edgebm.exec.collect import FloatRunner
from edgebm.ir.canonical import canonicalize
from edgebm.ir.edit import name
from edgebm.ir.model import Model

_SIZES = (3, 5, 7)  # of free axes: none is 1, and the first differ
_LARGEST_ERROR = 1e-3

Arrays = Mapping[str, NDArray[Any]]


def random_feeds(model: Model) -> dict[str, NDArray[Any]]:
    """Normal numbers for float inputs, 0 and 1 for others; free axes get small sizes."""
    return {name(v): _random(v, seed) for seed, v in enumerate(model.graph.graph.inputs)}


def answers(model: Model, feeds: Arrays, label: str) -> dict[str, NDArray[Any]]:
    """The outputs of the graph in canonical form, in float on ONNX Runtime.

    Raises:
        UnsupportedModel: the graph cannot be brought into canonical form.
        ModelError: it does not run with these sizes.
    """
    wanted = [name(v) for v in model.graph.graph.outputs]
    runner = FloatRunner(canonicalize(model), wanted)
    try:
        found = runner.run(dict(feeds))
    except Exception as cause:
        raise ModelError(
            f"{label}: the exported graph does not run: {cause}",
            hint="export it with KERAS_BACKEND=tensorflow",
        ) from cause
    return {key: found[key] for key in wanted}


def prove(got: Arrays, wanted: Sequence[NDArray[Any]], who: str, hint: str = "") -> None:
    """Compare the outputs of a graph with those of its source, in order.

    Raises:
        ModelError: another number of outputs, another shape, or a relative error (Frobenius) of
            1e-3 or more.
    """
    if len(got) != len(wanted):
        raise ModelError(f"{who} exports has {len(got)} outputs, the model {len(wanted)}")
    for (label, ours), theirs in zip(got.items(), wanted, strict=True):
        error = _distance(ours, theirs)
        if not error < _LARGEST_ERROR:
            raise ModelError(
                f"{who} exports answers otherwise than the model (output '{label}', relative "
                f"error {error:.1e} on random numbers)",
                hint=hint
                or "layers that draw random numbers at inference cannot be kept; "
                "else export it to ONNX on its own and compare",
            )


def _random(value: ir.Value, seed: int) -> NDArray[Any]:
    assert value.shape is not None
    assert value.dtype is not None
    rng = np.random.default_rng(seed)
    shape = [
        dim if isinstance(dim, int) else _SIZES[min(axis, len(_SIZES) - 1)]
        for axis, dim in enumerate(value.shape)
    ]
    kind = value.dtype.numpy()
    if np.issubdtype(kind, np.floating):
        return rng.normal(size=shape).astype(kind)
    return rng.integers(0, 2, shape).astype(kind)


def _distance(got: NDArray[Any], want: NDArray[Any]) -> float:
    if got.shape != want.shape:
        return float("inf")
    norm = float(np.linalg.norm(want.astype(np.float64)))
    off = float(np.linalg.norm(got.astype(np.float64) - want.astype(np.float64)))
    return off / norm if norm else off
