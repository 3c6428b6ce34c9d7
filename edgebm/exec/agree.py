"""Whether two parts of one graph compute the same, tried on random numbers."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray

from edgebm.exec.collect import Feeds, FloatRunner
from edgebm.ir.edit import name, remove_dead, replace_uses
from edgebm.ir.model import Model

_FREE = 2


def largest_error(
    model: Model, pairs: Mapping[ir.Value, ir.Value], roots: Iterable[ir.Value], *, seed: int = 0
) -> float:
    """The largest relative error (Frobenius) of the second value of a pair against the first.

    Everything in front of `roots` is left out and they get normal random numbers, free axes two
    of them; ONNX Runtime computes both sides in float. Infinity where shapes differ.

    Raises:
        BackendFailed: ONNX Runtime does not load the part.
        DataError: it does not run it.
    """
    wanted = list(dict.fromkeys([name(v) for pair in pairs.items() for v in pair]))
    part = _cut_out(model, wanted, [name(v) for v in roots if v.const_value is None])
    found = FloatRunner(part, wanted).run(_random(part, seed))
    errors = [_relative(found[name(new)], found[name(old)]) for old, new in pairs.items()]
    return max(errors)


def _cut_out(model: Model, wanted: list[str], roots: list[str]) -> Model:
    part = model.clone()
    graph = part.graph.graph
    values = {v.name: v for node in graph for v in node.outputs}
    graph.outputs.clear()
    for label in dict.fromkeys(roots):
        old = values.pop(label, None)
        if old is None:
            continue  # an input of the model already
        fresh = ir.val(None)
        fresh.type, fresh.shape = old.type, old.shape
        replace_uses(old, fresh)
        old.name, fresh.name = None, label
        graph.inputs.append(fresh)
    graph.outputs.extend(values[label] for label in wanted)
    remove_dead(graph)
    for value in list(graph.inputs):
        if not tuple(value.uses()) and not value.is_graph_output():
            graph.inputs.remove(value)
    return part


def _random(model: Model, seed: int) -> Feeds:
    rng = np.random.default_rng(seed)
    feeds = {}
    for value in model.graph.graph.inputs:
        assert value.shape is not None
        assert value.dtype is not None
        shape = [dim if isinstance(dim, int) else _FREE for dim in value.shape]
        feeds[name(value)] = rng.normal(size=shape).astype(value.dtype.numpy())
    return feeds


def _relative(got: NDArray[Any], want: NDArray[Any]) -> float:
    if got.shape != want.shape:
        return float("inf")
    norm = float(np.linalg.norm(want.astype(np.float64)))
    off = float(np.linalg.norm(got.astype(np.float64) - want))
    return off / norm if norm else off
