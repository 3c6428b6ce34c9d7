"""What the outputs lose with a unit, from gradients: a gate of 1 stands in front of each unit."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from edgebm.errors import DataError, UnsupportedModel
from edgebm.grad.batches import seeded, stacked
from edgebm.grad.lesson import output_kind
from edgebm.grad.losses import logs
from edgebm.grad.module import GraphModule
from edgebm.ir.edit import name
from edgebm.ir.model import Model
from edgebm.ir.traits import is_float

Feeds = Mapping[str, NDArray[Any]]
_TINY = 1e-12
Spot = tuple[str, int, NDArray[np.int64]]
"""The name of a value or constant, the axis that units lie along, their positions [units, k]."""


def gate_scores(
    model: Model,
    gates: Mapping[str, tuple[int, Sequence[Spot]]],
    samples: Iterable[Feeds],
    order: Literal[1, 2],
    seed: int,
    progress: Callable[[], None] = lambda: None,
) -> dict[str, NDArray[np.float64]]:
    """Mean over samples of |g| (order 1) or g^2 (order 2), g being the loss by each unit's gate.

    The loss needs no labels. An output is projected on a random direction and divided by its
    size: the mean of g^2 is then what its relative squared error grows by when the unit goes.
    Class scores also draw a label from the model's own distribution: the mean of g^2 is the
    Fisher information, twice what the KL divergence grows by. The sum of both ranks more safely
    than either: a model that is sure has hardly any Fisher information. How units make up for
    each other is not seen.

    Args:
        model: canonical, float.
        gates: for each group its number of units and where they lie.
        samples: one at a time, since each has a gradient of its own.
        order: of the estimate.
        seed: of labels and directions.
        progress: called after each sample.

    Returns:
        [units] by group.

    Raises:
        DataError: an output or a gradient is NaN or infinite on a sample.
        UnsupportedModel: ops without a gradient, all of them; no output with one.

    Source:
        Molchanov et al. 2019, arXiv:1906.10771, equations 6 and 8 with gates; Theis et al. 2018,
        arXiv:1801.05787, section 2.2.
    """
    module = GraphModule(model, trainable=lambda _: False)
    held = {group: torch.ones(units, requires_grad=True) for group, (units, _) in gates.items()}
    for group, (_, spots) in gates.items():
        for label, axis, index in spots:
            tap = functools.partial(_gated, held[group], torch.from_numpy(index), axis)
            module.taps[label] = _chained(module.taps.get(label), tap)
    ops = {name(v): n.op_type for n in model.nodes() for v in n.outputs if v.name}
    outputs = [name(value) for value in model.graph.graph.outputs if is_float(value)]
    if not outputs:
        raise UnsupportedModel(
            f"{model.source or 'the model'} has no output with a gradient",
            hint="rank units by importance: activation",
        )
    total = {group: np.zeros(len(gate)) for group, gate in held.items()}
    count = 0
    for count, feeds in enumerate(samples, start=1):
        got = module(stacked([feeds]), outputs)
        chance = seeded(seed, count)
        for label, value in got.items():
            _check_finite(value, f"output '{label}'", count)
        losses = [_loss(value, ops.get(label, ""), chance) for label, value in got.items()]
        found = torch.autograd.grad(
            torch.stack(losses).sum(), list(held.values()), allow_unused=True
        )
        for group, gradient in zip(held, found, strict=True):
            if gradient is not None:
                _check_finite(gradient, f"the gradient at '{group}'", count)
                total[group] += gradient.abs().pow(order).double().numpy()
        progress()
    return {group: each / max(1, count) for group, each in total.items()}


def _check_finite(value: Tensor, what: str, count: int) -> None:
    if not bool(value.isfinite().all()):
        raise DataError(
            f"calibration sample {count - 1}: {what} has NaN or infinite values",
            hint="take the sample out; if it is right, rank units by importance: magnitude",
        )


def _gated(gate: Tensor, index: Tensor, axis: int, value: Tensor) -> Tensor:
    """The value with each unit times its gate."""
    factors = torch.ones(value.shape[axis], dtype=value.dtype)
    factors = factors.index_put((index.reshape(-1),), gate.repeat_interleave(index.shape[1]))
    shape = [1] * value.ndim
    shape[axis] = -1
    return value * factors.reshape(shape)


def _chained(
    first: Callable[[Tensor], Tensor] | None, then: Callable[[Tensor], Tensor]
) -> Callable[[Tensor], Tensor]:
    return then if first is None else lambda value: then(first(value))


def _loss(value: Tensor, op_type: str, chance: torch.Generator) -> Tensor:
    """A number whose squared gradient is what the output loses, on the average over chance."""
    kind, axis = output_kind(value.detach(), op_type)
    if kind not in {"both", "logits", "probabilities"}:
        return _projected(value, chance)
    scores = logs(value) if kind == "probabilities" else value
    rows = scores.movedim(axis, -1).reshape(-1, scores.shape[axis])
    likelihoods = torch.log_softmax(rows, -1)
    drawn = torch.multinomial(likelihoods.detach().exp(), 1, generator=chance)
    surprise: Tensor = -likelihoods.gather(1, drawn).sum() / len(rows) ** 0.5
    # What all classes have in common is nothing to a softmax.
    return surprise + _projected(rows - rows.mean(-1, keepdim=True), chance)


def _projected(value: Tensor, chance: torch.Generator) -> Tensor:
    direction = torch.randn(value.shape, generator=chance, dtype=value.dtype)
    projected: Tensor = (value * direction).sum() / value.detach().norm().clamp_min(_TINY)
    return projected
