"""Quantization-aware training: weights, biases and steps of a rounded graph, led by a teacher."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from edgebm.grad.distill import Conditions, Taught, tables, teach
from edgebm.grad.fake_quantize import LearnedStep, tap_points
from edgebm.grad.module import GraphModule
from edgebm.grad.pair import Pair
from edgebm.grad.rows import Samples
from edgebm.grad.simulated import RoundedWeight, Simulated
from edgebm.grad.teaching import Teaching
from edgebm.grad.tensors import to_array, to_tensor
from edgebm.ir.edit import add_const, const, name
from edgebm.ir.learned import learned
from edgebm.ir.model import Model

Array = NDArray[Any]
Feeds = Mapping[str, Array]


@dataclass(frozen=True, slots=True)
class Trained:
    """What came of it.

    `constants` are all float constants of the trained graph by the names of the nodes that read
    them and the numbers of their inputs. `weight_steps` are the steps of weights by their labels,
    shaped as they were, and `point_steps` those of values by the value that has the range.
    """

    taught: Taught
    constants: dict[tuple[str, int], tuple[str, Array]]
    weight_steps: dict[str, NDArray[np.float32]]
    point_steps: dict[str, float]
    module: GraphModule

    @torch.no_grad()
    def answers(self, samples: Sequence[Feeds]) -> Iterator[dict[str, Array]]:
        """The outputs of the trained graph for each sample."""
        for feeds in samples:
            got = self.module({label: to_tensor(array) for label, array in feeds.items()})
            yield {label: value.numpy() for label, value in got.items()}


def train(
    graph: Simulated,
    teacher: Model,
    samples: Samples,
    teaching: Teaching,
    conditions: Conditions,
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> Trained:
    """Train the float weights behind the roundings of `graph` and, with them, the steps.

    Rounding passes gradients straight through. The last fifth of the samples judges, as for
    `distill`; where nothing was better on it than the start, all is as at the start.

    Args:
        graph: its model is changed: the gains of the steps are added.
        teacher: canonical; its outputs have the names that those of `graph` have.
        samples: what both read.
        teaching: losses, schedule and data.
        conditions: its precision is best float32: others round on their own.
        progress: called after each step with the steps done and their number.

    Raises:
        UnsupportedModel, TrainingDiverged, DataError, UsageError: see `distill`.

    Source:
        Esser et al. 2020, "LSQ", arXiv:1902.08153; Jacob et al. 2018, arXiv:1712.05877, section 3.
    """
    model = graph.model
    chosen = learned(model) - tables(model)
    gains = _add_gains(graph)
    names = chosen | set(gains.values())
    pupil = GraphModule(model, trainable=names.__contains__).to(conditions.world.device)
    master = GraphModule(teacher, trainable=lambda label: False).to(conditions.world.device)
    taps: dict[str, LearnedStep] = {}

    def begin() -> None:
        held = {label: pupil.trained[gain] for label, gain in gains.items()}
        taps.update(tap_points(pupil, graph.points, held))
        taps.update(_tap_weights(pupil, graph.weights, held))

    found = teach(
        Pair(model, teacher, pupil, master), samples, teaching, conditions, progress, begin
    )
    pupil.cpu()
    steps = {label: np.array(tap.step().cpu().numpy()) for label, tap in taps.items()}
    return Trained(
        found,
        dict(_constants(model, pupil)),
        {w.label: steps[w.label] for w in graph.weights},
        {p.source: float(steps[p.label]) for p in graph.points if p.source is not None},
        pupil,
    )


def _add_gains(graph: Simulated) -> dict[str, str]:
    """Zeros for the logarithms of what steps are multiplied by, by the label of what is rounded.

    Values that have one range share a gain. The rows of a recurrent cell keep their steps: its
    kernel wants some of them equal.
    """
    found: dict[str, str] = {}
    sources: dict[str, str] = {}
    held = graph.model.graph.graph
    for weight in graph.weights:
        if weight.params is not None:
            zeros = np.zeros_like(weight.step)
            found[weight.label] = name(add_const(held, f"{weight.label}@gain", zeros))
    for point in graph.points:
        if point.source is None:
            continue
        if point.source not in sources:
            zero = np.zeros((), np.float32)
            sources[point.source] = name(add_const(held, f"{point.source}@gain", zero))
        found[point.label] = sources[point.source]
    return found


def _tap_weights(
    module: GraphModule, weights: Sequence[RoundedWeight], gains: Mapping[str, Tensor]
) -> dict[str, LearnedStep]:
    taps = {
        w.label: LearnedStep(torch.tensor(w.step), -w.high, w.high, gains.get(w.label))
        for w in weights
    }
    module.taps.update(taps)
    return taps


def _constants(
    model: Model, module: GraphModule
) -> Iterator[tuple[tuple[str, int], tuple[str, Array]]]:
    """Float constants as they are now, with their names, by the nodes and inputs reading them."""
    weights = module.weights
    for node in model.nodes():
        for index, value in enumerate(node.inputs):
            array = const(value)
            if (
                value is not None
                and array is not None
                and weights[name(value)].is_floating_point()
            ):
                yield (
                    (node.name or "?", index),
                    (
                        name(value),
                        to_array(weights[name(value)], array.dtype),
                    ),
                )
