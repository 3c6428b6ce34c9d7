"""How much each quantized node harms the model's outputs: alone, and by its absence."""

from __future__ import annotations

import math
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import onnx_ir as ir
from numpy.typing import NDArray

from edgebm.backends.dialects import Dialect
from edgebm.backends.placement import place
from edgebm.backends.qdq import lower
from edgebm.exec.collect import Feeds, FloatRunner
from edgebm.exec.compare import Sqnr
from edgebm.exec.simulation import AS_LOWERED, Setting, Simulation
from edgebm.ir.model import Model
from edgebm.ir.traits import ACTIVATIONS
from edgebm.search.job import Job, Progress

SAMPLES = 16
MOST_SECONDS = 60.0  # of the whole measurement; fewer samples are taken when it would be longer


@dataclass(frozen=True, slots=True)
class LayerError:
    """What one node costs at the model's worst output, as SQNR in dB; infinity for nothing.

    `alone_db`: only this node is on integers. `without_db`: all others are.
    """

    name: str
    op: str
    alone_db: float
    without_db: float

    @property
    def noise(self) -> float:
        """Noise power over signal power that the node adds alone."""
        return 10 ** (-self.alone_db / 10)


@dataclass(frozen=True, slots=True)
class LayerErrors:
    """`full_db` is the SQNR of the whole INT8 model; `layers` the most harmful first."""

    full_db: float
    layers: tuple[LayerError, ...]
    samples: int = 0


class Sensitivity:
    """One simulated INT8 model, and the float model's outputs on the same few samples."""

    def __init__(self, job: Job, decided: Model, dialect: Dialect) -> None:
        """`decided` is annotated and not changed.

        Raises:
            BackendFailed: ONNX Runtime does not load the graph.
        """
        self._job, self._decided, self._dialect = job, decided, dialect
        lowered, self.plan = lower(decided, dialect, job.is_ignored)
        self.nodes = [node.name or "?" for node in self.plan.nodes]
        self._outputs = [s.name for s in job.face.outputs if s.dtype == "float32"]
        self._simulation = Simulation(lowered, decided, self._outputs)
        self._reference = FloatRunner(job.model, self._outputs)
        self._samples: list[tuple[Feeds, Mapping[str, NDArray[Any]]]] = []

    @property
    def is_measurable(self) -> bool:
        """Whether there is a float32 output and a node on integers."""
        return bool(self._outputs and self.nodes)

    def measure(self, progress: Progress) -> LayerErrors:
        """Two calls a node and sample; a few samples, fewer where a call is slow."""
        self.take_samples(1)
        start = time.perf_counter()
        self.sqnr_db(AS_LOWERED)
        seconds = (time.perf_counter() - start) * (2 * len(self.nodes) + 1)
        count = min(SAMPLES, len(self._job.calibration), max(2, int(MOST_SECONDS / seconds)))
        self.take_samples(count)
        layers = []
        for done, node in enumerate(self.plan.nodes):
            progress("sensitivity", done, len(self.nodes))
            label = node.name or "?"
            alone, without = self.sqnr_db(self._alone(node)), self.sqnr_db(self.lifted({label}))
            layers.append(LayerError(label, node.op_type, alone, without))
        progress("sensitivity", len(self.nodes), len(self.nodes))
        ranked = sorted(layers, key=lambda layer: (layer.alone_db, layer.without_db))
        return LayerErrors(self.sqnr_db(AS_LOWERED), tuple(ranked), len(self._samples))

    def sqnr_db(self, setting: Setting) -> float:
        """SQNR of the model's worst output under `setting`, in dB, over all samples taken."""
        found = Sqnr(self._outputs)
        for feeds, want in self._samples:
            found.add(want, self._simulation.run(feeds, setting))
        return min(found.db.values())

    def lifted(self, floats: set[str]) -> Setting:
        """The setting in which the nodes `floats` compute in float and all others as planned.

        Joins between them lose their integers too, exactly as lowering would decide.
        """
        job = self._job
        plan = place(
            self._decided,
            self._dialect,
            lambda name, op: name in floats or job.is_ignored(name, op),
            decided=True,
        )
        integer = {node.name or "?" for node in plan.nodes}
        readers = integer | {node.name or "?" for node in plan.carriers}
        off = {
            (label, reader)
            for label, reader in self._simulation.edges
            if label not in plan.points or not (label in plan.whole or reader in readers)
        }
        weights = {
            name: weight
            for name, weight in self._simulation.float_weights.items()
            if name not in integer
        }
        return Setting(off=off, weights=weights)

    def _alone(self, node: ir.Node) -> Setting:
        """Only the inputs, the weight and, where its kernel rounds it, the output of `node`."""
        label = node.name or "?"
        own = {v.name for v in _outputs_through_activation(node)} & self.plan.whole
        edges = self._simulation.edges
        off = {edge for edge in edges if edge[1] != label and edge[0] not in own}
        weights = {n: w for n, w in self._simulation.float_weights.items() if n != label}
        return Setting(off=off, weights=weights)

    def take_samples(self, count: int) -> None:
        feeds = list(self._job.calibration.feeds(0, count))
        self._samples = [(each, self._reference.run(each)) for each in feeds]


def layer_errors(job: Job, decided: Model, dialect: Dialect, progress: Progress) -> LayerErrors:
    """The error of every quantized node at the model's outputs, most harmful first.

    Simulated in float with the rounding of the integers, so that the figures are those of the
    placement and not of a CPU. Without a float32 output or a quantized node the list is empty.

    Args:
        job: the float model and its calibration samples.
        decided: the annotated model; not changed.
        dialect: the placement to look at.
        progress: called as `progress(step, done, total)`.
    """
    sensitivity = Sensitivity(job, decided, dialect)
    if not sensitivity.is_measurable:
        return LayerErrors(math.inf, ())
    return sensitivity.measure(progress)


def _outputs_through_activation(node: ir.Node) -> Sequence[ir.Value]:
    """The node's output, and that of a sole ReLU or Clip behind it."""
    out = node.outputs[0]
    uses = tuple(out.uses())
    after = [use.node.outputs[0] for use in uses if use.node.op_type in ACTIVATIONS]
    return [out, *after] if len(uses) == 1 else [out]
