"""How much each unit matters: one score per unit, the sum of which is what cutting loses."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from edgebm.exec.collect import collect
from edgebm.ir.edit import const
from edgebm.ir.model import Model
from edgebm.pruning.group import Group, Place

Importance = Literal["magnitude", "activation", "taylor", "fisher"]
Feeds = Mapping[str, NDArray[Any]]
Scores = dict[str, NDArray[np.float64]]


def importance(
    model: Model,
    groups: Sequence[Group],
    kind: Importance,
    samples: Sequence[Feeds],
    *,
    seed: int = 0,
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> Scores:
    """A score per unit, [units] by the name of its group.

    - "magnitude": the squared norm of all weights of the unit, relative to the mean of its
      group (Li et al. 2017, arXiv:1608.08710; summed over coupled layers as in Fang et al. 2023,
      arXiv:2301.12900). Knows no samples.
    - "activation": the mean of |activation| where the unit is read times the norm of what reads
      it, relative to the mean of its group.
    - "taylor", "fisher": first and second moment of the gradient of the outputs' loss by a gate
      in front of what reads the unit (`grad/gates.py`); Molchanov et al. 2019, arXiv:1906.10771;
      LeCun et al. 1990, "Optimal Brain Damage"; Liu et al. 2021, "Group Fisher Pruning",
      arXiv:2108.00708. They compare between groups.

    With "fisher" trained CNNs keep by far the most of their accuracy; that of recurrent layers
    hardly depends on the kind.

    Args:
        model: canonical, float.
        groups: of `find_groups`.
        kind: how.
        samples: what the model is run on.
        seed: of chance in "taylor" and "fisher".
        progress: called with samples done and their number.
    """
    if kind == "magnitude":
        return {group.name: _relative(_magnitude(model, group)) for group in groups}
    done = 0

    def advance() -> None:
        nonlocal done
        done += 1
        progress(done, len(samples))

    if kind == "activation":
        return _activation(model, groups, samples, advance)
    from edgebm.grad.gates import gate_scores

    gates = {
        group.name: (group.units, [(p.name, p.axis, p.index) for p in _gated(group)])
        for group in groups
    }
    order: Literal[1, 2] = 1 if kind == "taylor" else 2
    return gate_scores(model, gates, samples, order, seed, advance)


def _gated(group: Group) -> Sequence[Place]:
    """Where a gate takes the unit away once, as cutting does: in front of each of its readers.

    Those are columns of constants. Activations would not do: a depthwise convolution makes the
    unit anew, a product of two has it twice, and what is added to a residual stream is read by
    the next Add as well.
    """
    return group.reads or (group.inputs or group.values)[:1]


def _magnitude(model: Model, group: Group) -> NDArray[np.float64]:
    return _squares(model, group, (*group.writes, *group.reads))


def _squares(model: Model, group: Group, places: Sequence[Place]) -> NDArray[np.float64]:
    """The squared norm of each unit's weights in `places`, each place relative to its mean."""
    weights = model.graph.graph.initializers
    total = np.zeros(group.units)
    for place in places:
        array = const(weights.get(place.name))
        if array is None or not np.issubdtype(array.dtype, np.floating):
            continue
        others = tuple(axis for axis in range(array.ndim) if axis != place.axis % array.ndim)
        squares = np.square(array, dtype=np.float64).sum(axis=others)[place.index].sum(1)
        total += squares / max(squares.mean(), np.finfo(np.float64).tiny)
    return total


def _activation(
    model: Model, groups: Sequence[Group], samples: Sequence[Feeds], advance: Callable[[], None]
) -> Scores:
    sums: dict[tuple[str, int], NDArray[np.float64]] = {}
    axes: dict[str, set[int]] = {}
    for group in groups:
        for place in group.inputs or group.values:
            axes.setdefault(place.name, set()).add(place.axis)

    def watch(label: str) -> Callable[[NDArray[Any]], None]:
        def sink(value: NDArray[Any]) -> None:
            for axis in axes[label]:
                others = tuple(i for i in range(value.ndim) if i != axis % value.ndim)
                mean = np.abs(value).mean(axis=others, dtype=np.float64)
                sums[label, axis] = sums.get((label, axis), 0.0) + mean

        return sink

    collect(model, samples, {label: watch(label) for label in axes}, advance)
    scores = {}
    for group in groups:
        mean = np.zeros(group.units)
        for place in group.inputs or group.values:
            mean += sums[place.name, place.axis][place.index].sum(1)
        read = np.sqrt(_squares(model, group, group.reads))
        scores[group.name] = _relative(mean * (read if read.any() else 1.0))
    return scores


def _relative(score: NDArray[np.float64]) -> NDArray[np.float64]:
    return score / max(float(score.mean()), np.finfo(np.float64).tiny)
