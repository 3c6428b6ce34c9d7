"""Train a model with its rounding in place, so that it loses less by it."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Annotated, ClassVar, Literal

import onnx_ir as ir
from pydantic import Field

from edgebm.exec.collect import Feeds, FloatRunner
from edgebm.exec.compare import Sqnr
from edgebm.exec.rounded_cells import with_rounded_cells
from edgebm.ir.annotate import cell_params_of, has_ranges
from edgebm.ir.edit import name
from edgebm.ir.model import Model
from edgebm.ir.traits import RECURRENT
from edgebm.passes.base import Context, spread_out, step
from edgebm.passes.distill import Losses, needs_torch
from edgebm.quant.recurrent import CellParams

if TYPE_CHECKING:
    from edgebm.grad.qat import Trained
    from edgebm.grad.teaching import Teaching

_CHECKED = 16  # samples on which what was written is compared with what was trained
_MINUTES = 5.0
_RATE = 3e-4
_ENDLESS = 1_000_000  # steps, before the time is known that one of them takes


@step
class Qat:
    """Train weights, biases and the steps of their grids with all rounding in place.

    The graph is that which the target would compute, rounding simulated in float; its teacher is
    the original model, on unlabelled samples. With a weight for `losses.labels` the task itself
    counts too. What was trained goes back into the float weights and into the decisions on them,
    so that every engine is lowered to it as before. Recurrent cells that compute in integers have
    their weights and inputs rounded, their states not.

    It comes last: behind the steps that decide, and behind `correct_bias` and `learn_rounding`,
    from whose results it starts. Where the loss on held-out samples did not fall, or where the
    lowered graph answers otherwise than the trained one, everything stays as it was.

    The shortest of `minutes`, `steps` and `epochs` ends it; without any, five minutes. A plan by
    minutes depends on the machine. `rate` is the highest learning rate, of weights and of the
    logarithms of steps.

    Source:
        Esser et al. 2020, "LSQ", arXiv:1902.08153; Hinton et al. 2015, arXiv:1503.02531 (the
        teacher).
    """

    kind: Literal["qat"] = "qat"
    needs_samples: ClassVar[bool] = True
    minutes: Annotated[float, Field(gt=0)] | None = None
    steps: Annotated[int, Field(ge=1)] | None = None
    epochs: Annotated[float, Field(gt=0)] | None = None
    batch: Annotated[int, Field(ge=1)] = 64
    rate: Annotated[float, Field(gt=0)] = _RATE
    temperature: Annotated[float, Field(gt=0)] = 1.0
    losses: Losses = Losses()

    def __call__(self, model: Model, ctx: Context, /) -> Model:
        if not has_ranges(model):
            ctx.skip(self, None, "no activation was quantized before it")
            return model
        needs_torch()
        samples = ctx.training or ctx.given("training with rounding")
        from edgebm.grad.distill import Conditions
        from edgebm.grad.identity import Kept
        from edgebm.grad.qat import train
        from edgebm.grad.simulated import simulated
        from edgebm.grad.world import joined
        from edgebm.grad.write_trained import write

        lowered = ctx.lower(model)
        cells = _cells(lowered)
        graph = simulated(with_rounded_cells(lowered), model, cells, as_learned=True)
        if not graph.weights and not graph.points:
            ctx.skip(self, None, "nothing of the model is lowered to integers")
            return model

        def progress(done: int, total: int) -> None:
            ctx.progress(self.kind, done, total)

        teacher = model if ctx.teacher is None else ctx.teacher
        kept = None if ctx.checkpoint is None else Kept(ctx.checkpoint, own_name=True)
        with joined() as world:
            found = train(
                graph, teacher, samples, self.teaching(ctx.seed),
                Conditions(world, "f32", kept), progress,
            )  # fmt: skip
        for node, reason in found.taught.left_out:
            ctx.skip(self, node, reason)
        fitted = found.taught.fitted
        told = f"{fitted.steps} steps on {len(samples)} samples with all rounding in place"
        if not fitted.best < fitted.before:
            reason = f"after {told} the loss on those held out had not fallen; nothing is changed"
            ctx.skip(self, None, reason)
            return model
        before = model.clone()
        write(found, graph, model)
        few = list(spread_out(samples, _CHECKED)[0])
        if reason := _why_not(model, teacher, found, few, ctx):
            ctx.skip(self, None, reason)
            return before
        ctx.notes.append(
            f"trained for {told}: the loss on those held out fell from {fitted.before:.4g} to "
            f"{fitted.best:.4g}"
        )
        ctx.notes.extend(found.taught.notes)
        return model

    @property
    def planned_s(self) -> float:
        """How long it may take at most, as far as that is known beforehand."""
        return 60 * (_MINUTES if self.minutes is None else self.minutes)

    def teaching(self, seed: int) -> Teaching:
        """The same in the words of the library."""
        from edgebm.grad.schedule import Schedule
        from edgebm.grad.teaching import Teaching, Weights

        unbounded = self.minutes is self.steps is self.epochs is None
        minutes = _MINUTES if unbounded else self.minutes
        losses = self.losses
        return Teaching(
            Schedule(
                self.steps or _ENDLESS,
                self.rate,
                check_every="auto",
                budget_s=math.inf if minutes is None else 60 * minutes,
            ),
            batch=self.batch,
            epochs=self.epochs,
            temperature=self.temperature,
            weights=Weights(
                losses.outputs, losses.features, losses.attention, losses.relations, losses.labels
            ),
            seed=seed,
        )


def _cells(lowered: Model) -> dict[str, CellParams]:
    found = {n.name or "?": cell_params_of(n) for n in lowered.nodes(*RECURRENT)}
    return {label: params for label, params in found.items() if params is not None}


def _why_not(
    model: Model, teacher: Model, found: Trained, samples: Sequence[Feeds], ctx: Context
) -> str:
    """Why the lowered graph is not what was trained; an empty string if it is."""
    outputs = [name(v) for v in model.graph.graph.outputs if v.dtype == ir.DataType.FLOAT]
    lowered = FloatRunner(with_rounded_cells(ctx.lower(model)), outputs, plain=True)
    exact = FloatRunner(teacher, outputs)
    lost, written = Sqnr(outputs), Sqnr(outputs)
    for feeds, trained in zip(samples, found.answers(samples), strict=True):
        lost.add(exact.run(feeds), trained)
        written.add(trained, lowered.run(feeds))
    for label in outputs:
        if written.db[label] < lost.db[label]:
            return (
                f"lowered, output '{label}' is {written.db[label]:.1f} dB from what was trained, "
                f"which is {lost.db[label]:.1f} dB from the original; nothing is changed"
            )
    return ""
