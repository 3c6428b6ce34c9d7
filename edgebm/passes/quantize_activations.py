"""Calibrate: one sweep over the samples decides the range of every activation."""

from __future__ import annotations

from typing import ClassVar, Literal

from edgebm.exec.collect import collect
from edgebm.ir.annotate import set_quant
from edgebm.ir.model import Model
from edgebm.passes.base import Context, step
from edgebm.quant.observe import ObserverKind, observer
from edgebm.quant.params import Range


@step
class QuantizeActivations:
    """Leave a per-tensor `Range` on every value that an engine of the target would quantize.

    `observer` names how the range is chosen: `minmax` (Krishnamoorthi 2018, arXiv:1806.08342),
    `percentile`, `mse` (Nagel et al. 2021, arXiv:2106.08295, section 3.1) or `entropy` (Migacz
    2017). Memory does not grow with the number of samples.
    """

    kind: Literal["quantize_activations"] = "quantize_activations"
    needs_samples: ClassVar[bool] = True
    observer: ObserverKind = "minmax"

    def __call__(self, model: Model, ctx: Context, /) -> Model:
        hint = "give them with -d samples.npz, or use -r fp32"
        samples = ctx.given("static quantization", hint)
        wanted = ctx.observe(model)
        if not wanted:
            ctx.skip(self, None, "the model has nothing that can run in int8 on this target")
            return model
        watchers = {name: observer(self.observer) for name in wanted}
        sinks = {name: watcher.update for name, watcher in watchers.items()}
        collect(model, samples.feeds(), sinks, ctx.counter(self.kind, len(samples)))
        values = {v.name: v for node in model.graph.graph for v in node.outputs}
        values |= {v.name: v for v in model.graph.graph.inputs}
        for name, watcher in watchers.items():
            span = watcher.result()
            if span.low == span.high == 0.0:
                ctx.skip(self, name, "the value is zero on every sample; it covers [-1, 1]")
                span = Range(-1.0, 1.0)
            set_quant(values[name], span)
        return model
