"""Choose each activation's range by what it costs at the model's outputs."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated, Any, ClassVar, Literal

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray
from pydantic import Field

from edgebm.exec.collect import FloatRunner, collect
from edgebm.exec.compare import Sqnr
from edgebm.exec.simulation import Setting, Simulation
from edgebm.ir.annotate import has_ranges, range_of, range_source, set_quant
from edgebm.ir.edit import name
from edgebm.ir.model import Model
from edgebm.passes.base import Context, Feeds, Samples, step
from edgebm.quant.observe import Extremes, every_range
from edgebm.quant.params import QuantParams, Range, range_params

_Sample = tuple[Feeds, Mapping[str, NDArray[Any]]]
_GAIN_DB = 0.05  # less is within what other samples would change
_HELD = 64  # samples in memory at a time


@step
class ChooseRanges:
    """Try the ranges of every observer for each quantized activation; keep the least harmful.

    Candidates are today's range and those of `minmax`, `percentile` (99.99 and 99.9), `mse` and
    `entropy`. The error is measured at the model's worst output, with this tensor alone rounded
    and all else in float, on `samples` calibration samples: half of them are those in which the
    tensor reaches farthest. Rare values that matter to nobody are cut off, and those that matter
    are kept. A range has to gain 0.05 dB to take the place of an earlier one. Values that share
    one observed range move together. Only values that the placement of the target quantizes are
    looked at; the others keep their range.

    It takes one sweep over all samples, and then up to 6 x values x `samples` calls of the
    simulated model, each a few times as long as a call in float: seconds for a CNN, minutes for a
    Transformer. Ranges that differ by less than half a step are tried once.

    Source:
        Nagel et al. 2021, arXiv:2106.08295, section 3.1 (ranges by an error on data); the error is
        that of the outputs, as in Nahshan et al. 2021, arXiv:1911.07190, section 3.
    """

    kind: Literal["choose_ranges"] = "choose_ranges"
    needs_samples: ClassVar[bool] = True
    samples: Annotated[int, Field(ge=2)] = 16

    def __call__(self, model: Model, ctx: Context, /) -> Model:
        given = ctx.given("choosing ranges")
        if not has_ranges(model):
            ctx.skip(self, None, "no activation was quantized before it")
            return model
        outputs = [v for v in model.graph.graph.outputs if v.dtype == ir.DataType.FLOAT]
        if not outputs:
            ctx.skip(self, None, "the model has no float32 output to measure the error at")
            return model
        trial = _Trial(ctx.lower(model), model, [name(v) for v in outputs], given)
        seen = {source: Extremes(self.samples // 2) for source in trial.points}
        advance = ctx.counter(self.kind, len(given) + len(seen))
        sinks = {source: histogram.update for source, histogram in seen.items()}
        if not sinks:
            ctx.skip(self, None, "the placement of this target quantizes no activation")
            return model
        collect(model, given.feeds(), sinks, advance)
        for source, value in trial.sources.items():
            set_quant(value, trial.best(source, seen[source], self.samples))
            advance()
        return model


@dataclass(frozen=True, slots=True)
class _Grid:
    """Bits and sign of the integers of a point."""

    bits: int
    signed: bool

    def over(self, span: Range) -> QuantParams:
        return range_params(span, bits=self.bits, signed=self.signed)


class _Trial:
    """The simulated model, in which one range at a time is on.

    `points` are the quantized values by the name of the value whose range they have, `sources`
    those values.
    """

    def __init__(self, lowered: Model, model: Model, outputs: list[str], samples: Samples) -> None:
        self._outputs, self._samples = outputs, samples
        self._simulation = Simulation(lowered, model, outputs)
        self._plain = FloatRunner(model, outputs)
        self._held: OrderedDict[int, _Sample] = OrderedDict()
        values = {name(v): v for node in model.nodes() for v in node.outputs}
        values |= {name(v): v for v in model.graph.graph.inputs}
        self.points: dict[str, list[str]] = {}
        self.sources: dict[str, ir.Value] = {}
        for point in self._simulation.grids:
            source = range_source(values[point])
            assert source is not None
            self.points.setdefault(name(source), []).append(point)
            self.sources[name(source)] = source

    def best(self, source: str, seen: Extremes, most: int) -> Range:
        """The range of the value `source` that keeps most of the worst output."""
        today = range_of(self.sources[source])
        assert today is not None
        grid = self._grid(source, today)
        spans = _distinct([today, *every_range(seen, grid.bits)])
        if len(spans) == 1:
            return today
        weights = self._weights(seen.farthest, most)
        best, least = today, -np.inf
        for span in spans:
            kept = self._db(source, grid.over(span), weights)
            if span is today or kept > least + _GAIN_DB:
                best, least = span, kept
        return best

    def _weights(self, farthest: Sequence[int], most: int) -> dict[int, float]:
        """How many samples each of the `most` that are looked at stands for, by its index.

        What a range cuts off lies in few samples: those that reach farthest stand for themselves,
        and others at even distances for all that is left.
        """
        rest = [i for i in range(len(self._samples)) if i not in farthest]
        stride = -(-len(self._samples) // (most - most // 2))
        picked = [i for i in rest if i % stride == 0] or rest[:1]
        return dict.fromkeys(farthest, 1.0) | {i: len(rest) / len(picked) for i in picked}

    def _sample(self, index: int) -> _Sample:
        """A sample and what the float model answers; the last ones are held."""
        if index not in self._held:
            feeds = next(iter(self._samples.feeds(index, index + 1)))
            self._held[index] = (feeds, self._plain.run(feeds))
        self._held.move_to_end(index)
        if len(self._held) > _HELD:
            self._held.popitem(last=False)
        return self._held[index]

    def _db(self, source: str, params: QuantParams, weights: Mapping[int, float]) -> float:
        points = self.points[source]
        setting = Setting(
            off={edge for edge in self._simulation.edges if edge[0] not in points},
            weights=self._simulation.float_weights,
            params=dict.fromkeys(points, params),
        )
        found = Sqnr(self._outputs)
        for index, weight in weights.items():
            feeds, want = self._sample(index)
            found.add(want, self._simulation.run(feeds, setting), weight)
        return min(found.db.values())

    def _grid(self, source: str, today: Range) -> _Grid:
        """The integers that the lowered graph has for `source`: told by its step."""
        scale, zero = self._simulation.grids[self.points[source][0]]
        signed = zero.dtype == np.int8
        for bits in range(8, 1, -1):
            if _Grid(bits, signed).over(today).scale == scale:
                return _Grid(bits, signed)
        raise AssertionError(f"no grid of {source} has the step {scale}")


def _distinct(spans: Sequence[Range]) -> list[Range]:
    """Those that differ from all before them by half a step of 8 bits, at one end at least."""
    kept: list[Range] = []
    for span in spans:
        least = (max(span.high, 0.0) - min(span.low, 0.0)) / 510
        ends = np.array([[abs(span.low - k.low), abs(span.high - k.high)] for k in kept])
        if not kept or (ends.max(axis=1) > least).all():
            kept.append(span)
    return kept
