"""What must hold for every cut: it runs, and answers as the masked model at full size does."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from graphs import outputs
from numpy.typing import NDArray

from edgebm.ir.check import verify
from edgebm.ir.edit import const
from edgebm.ir.face import face
from edgebm.ir.model import Model
from edgebm.pruning.cut import cut
from edgebm.pruning.groups import Found
from edgebm.pruning.mask import masked

Array = NDArray[Any]
Removed = dict[str, Array]
TOLERANCE = 1e-4


def share_of(found: Found, share: float, seed: int) -> Removed:
    """Random units of every group: `share` of them, at least one and never all."""
    rng = np.random.default_rng(seed)
    return {
        group.name: rng.choice(
            group.units, min(group.units - 1, max(1, round(share * group.units))), replace=False
        )
        for group in found.groups
    }


def check_removed(model: Model, removed: Removed, *feeds: Mapping[str, Array]) -> Model:
    """The cut of `model`, after it was compared with the masked original on `feeds`.

    The whole model must answer otherwise, else nothing was shown.
    """
    before = snapshot(model)
    small, blind = cut(model.clone(), removed), masked(model.clone(), removed)
    assert snapshot(model) == before  # a clone shares its arrays
    for made in (small, blind):
        verify(made)
        assert face(made) == face(model)
    assert small.param_count() < model.param_count()
    for given in feeds:
        whole, wanted, got = (outputs(m, given) for m in (model, blind, small))
        for label, array in wanted.items():
            scale = np.abs(array).max() + 1e-9
            assert np.abs(got[label] - array).max() / scale <= TOLERANCE, label
        apart = [np.abs(whole[k] - v).max() / (np.abs(v).max() + 1e-9) for k, v in wanted.items()]
        assert max(apart) > 1e-3
    return small


def snapshot(model: Model) -> object:
    """What the model is; of large ones which arrays they have."""
    if model.weights_bytes() < 2**26:
        return model.to_bytes()
    return {label: id(v.const_value) for label, v in model.graph.graph.initializers.items()}


def check_places(model: Model, found: Found) -> None:
    """Every place of every group is one of the model, and no position is in two units."""
    values = {v.name: v for node in model.nodes() for v in (*node.inputs, *node.outputs) if v}
    for group in found.groups:
        for place in (*group.writes, *group.reads, *group.values, *group.inputs):
            array, shape = const(values[place.name]), values[place.name].shape
            size = array.shape[place.axis] if array is not None else shape[place.axis]
            assert place.index.shape[0] == group.units
            assert np.unique(place.index).size == place.index.size
            if isinstance(size, int):
                assert place.index.max() < size
        assert all(const(values[place.name]) is not None for place in group.writes)
        assert len(set(group.layers)) == len(group.layers) > 0


def described(found: Found) -> list[str]:
    """`name kind units` of every group."""
    return [f"{group.name} {group.kind} {group.units}" for group in found.groups]
