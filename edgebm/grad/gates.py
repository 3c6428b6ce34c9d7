"""What the outputs lose with a unit, from gradients: a gate of 1 stands in front of each unit."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from edgebm.grad.batches import seeded, stacked
from edgebm.grad.lesson import output_kind
from edgebm.grad.losses import logs
from edgebm.grad.module import GraphModule
from edgebm.ir.edit import name
from edgebm.ir.model import Model

Feeds = Mapping[str, NDArray[Any]]
Spot = tuple[str, int, NDArray[np.int64]]
"""A value's name, the axis that units lie along, and their positions [units, k]."""


def gate_scores(
    model: Model,
    gates: Mapping[str, tuple[int, Sequence[Spot]]],
    samples: Iterable[Feeds],
    order: Literal[1, 2],
    seed: int,
    progress: Callable[[], None] = lambda: None,
) -> dict[str, NDArray[np.float64]]:
    """Mean over samples of |g| (order 1) or g^2 (order 2), g being the loss by each unit's gate.

    The loss needs no labels. For class scores the label is drawn from the model's own
    distribution, so that the mean of g^2 is the Fisher information, and half of it what the KL
    divergence grows by when the unit goes. Other outputs are projected on a random direction and
    divided by their size, so that the mean of g^2 is what the relative squared error grows by.

    Args:
        model: canonical, float.
        gates: for each group its number of units and where they lie.
        samples: one at a time, since each has a gradient of its own.
        order: of the estimate.
        seed: of labels and directions.
        progress: called after each sample.

    Returns:
        [units] by group.

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
    outputs = [name(value) for value in model.graph.graph.outputs]
    total = {group: np.zeros(len(gate)) for group, gate in held.items()}
    count = 0
    for count, feeds in enumerate(samples, start=1):
        got = module(stacked([feeds]), outputs)
        chance = seeded(seed, count)
        losses = [
            _loss(value, ops.get(label, ""), chance)
            for label, value in got.items()
            if value.is_floating_point()
        ]
        found = torch.autograd.grad(
            torch.stack(losses).sum(), list(held.values()), allow_unused=True
        )
        for group, gradient in zip(held, found, strict=True):
            if gradient is not None:
                total[group] += gradient.abs().pow(order).double().numpy()
        progress()
    return {group: each / max(1, count) for group, each in total.items()}


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
    fixed = value.detach()
    kind, axis = output_kind(fixed, op_type)
    if kind in {"both", "logits", "probabilities"}:
        scores = logs(value) if kind == "probabilities" else torch.log_softmax(value, axis)
        rows = scores.movedim(axis, -1).reshape(-1, scores.shape[axis])
        drawn = torch.multinomial(rows.detach().exp(), 1, generator=chance)
        surprise: Tensor = -rows.gather(1, drawn).sum() / len(rows) ** 0.5
        return surprise
    direction = torch.randn(fixed.shape, generator=chance, dtype=fixed.dtype)
    projected: Tensor = (value * direction).sum() / fixed.norm().clamp_min(1e-12)
    return projected
