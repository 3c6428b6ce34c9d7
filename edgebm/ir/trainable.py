"""Which constants of a graph are weights that training may change."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray

from edgebm.ir.edit import const, name
from edgebm.ir.model import Model

# Inputs by their places in the op's signature. Statistics of a BatchNormalization move along
# by themselves; tables (Gather) are left alone, as few rows of them are seen.
_PLACES: Mapping[str, tuple[int, ...]] = {
    "Conv": (1, 2),
    "ConvTranspose": (1, 2),
    "Gemm": (0, 1, 2),
    "MatMul": (0, 1),
    "Add": (0, 1),
    "Sub": (0, 1),
    "Mul": (0, 1),
    "Div": (0, 1),
    "LSTM": (1, 2, 3, 7),
    "GRU": (1, 2, 3),
    "RNN": (1, 2, 3),
    "BatchNormalization": (1, 2),
    "InstanceNormalization": (1, 2),
    "LayerNormalization": (1, 2),
    "GroupNormalization": (1, 2),
    "PRelu": (1,),
}
_SPARSE = 0.25
_LARGEST = 1e4  # masks are filled with numbers that stand for infinity


def weights_to_train(model: Model, *, tables: bool = False) -> frozenset[str]:
    """Names of the float initializers of more than one number that are weights or biases.

    Scalars, masks and what only moves or indexes are none; `tables` says whether the tables that
    Gather picks rows of, embeddings, are.
    """
    places = {**_PLACES, "Gather": (0,)} if tables else _PLACES
    found = set()
    for node in model.nodes():
        for index in places.get(node.op_type, ()):
            value = node.inputs[index] if index < len(node.inputs) else None
            array = const(value)
            if array is None or array.size < 2 or array.dtype.kind != "f":
                continue
            if bool(np.all(np.abs(array) < _LARGEST)):
                assert value is not None
                found.add(name(value))
    return frozenset(found)


def zeros_to_keep(model: Model, names: frozenset[str]) -> dict[str, NDArray[np.bool_]]:
    """Masks of those of the weights `names` that were made sparse: False where they stay zero.

    Such a weight has two axes or more and zeros in a quarter of its places or more, but not in
    all; trained weights are hardly ever zero by chance.
    """
    found = {}
    for label in sorted(names):
        array = const(model.graph.graph.initializers[label])
        assert array is not None
        zeros = float(np.mean(array == 0))
        if array.ndim > 1 and _SPARSE <= zeros < 1:
            found[label] = array != 0
    return found
