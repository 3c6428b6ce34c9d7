"""Learn which weights to round up and which down, block by block."""

from __future__ import annotations

import importlib.util
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, ClassVar, Literal

import numpy as np
from pydantic import Field

from edgebm.errors import UnsupportedModel
from edgebm.exec.collect import Feeds
from edgebm.exec.compare import decibels, worst_gain_db
from edgebm.exec.frontier import Frontier, Row, cut_out, most_bytes, run_stage
from edgebm.exec.rounded_cells import with_rounded_cells
from edgebm.ir.annotate import has_ranges, set_rounded, set_shift
from edgebm.ir.bias import shift_to, why_no_bias
from edgebm.ir.edit import const, name
from edgebm.ir.layers import output_channels
from edgebm.ir.model import Model
from edgebm.ir.stages import Stage, stages
from edgebm.passes.base import Context, spread_out, step
from edgebm.pruning.macs import terms_of, value_shapes

if TYPE_CHECKING:
    from edgebm.grad.rounding import Effort, Learned
    from edgebm.grad.simulated import Simulated

_LIMIT_BYTES = 2**30  # of what stages read and give over all samples
_COPIES = 4  # of each value: exact and rounded, and both once more while a stage is trained
_FEWEST = 2  # samples: one to learn from, one to judge by
_HELD_OUT = 5  # every fifth sample tells whether a stage got better
_STEPS = (50, 500)
_SMALLEST_BATCH = 4
# A step of training costs the multiplications of a stage three times, one core of AVX-512 and what
# lies between products taken together; and 3 ms, however small the stage.
_MACS_PER_SECOND, _SECONDS_PER_STEP = 12e9, 3e-3


@step
class LearnRounding:
    """Choose for each decided weight whether it rounds up or down; take biases along.

    The network is cut into stages: residual blocks, attention and MLP blocks, single layers in a
    chain. One after the other learns to give what it gives in float, from inputs as they come out
    of the rounded stages in front of it, so that it makes up for their errors too. Covers Conv,
    ConvTranspose, Gemm and MatMul with a constant weight whose integers the target multiplies.
    The float weights stay as they are: a layer that is lifted to float later is the exact one.

    A stage whose error on held-out samples did not fall rounds to the nearest; and everything is
    taken back where the model's worst output did not gain by it. It is left out where torch is
    not installed.

    `samples` are used at most, fewer where they would take more than 1 GiB; the last fifth of
    them judges. `seconds` is what training is planned to take, for all stages together, on one
    core with AVX-512: the plan is in steps, so that equal inputs give equal weights. A number for
    `steps` is that of each stage instead.

    Source:
        Nagel et al. 2020, "AdaRound", arXiv:2004.10568; Li et al. 2021, "BRECQ",
        arXiv:2102.05426, section 3.
    """

    kind: Literal["learn_rounding"] = "learn_rounding"
    needs_samples: ClassVar[bool] = True
    seconds: Annotated[float, Field(gt=0)] = 120.0
    steps: Annotated[int, Field(ge=1)] | Literal["auto"] = "auto"
    samples: Annotated[int, Field(ge=2)] = 512
    batch: Annotated[int, Field(ge=1)] = 32
    rate: Annotated[float, Field(gt=0)] = 0.1

    def __call__(self, model: Model, ctx: Context, /) -> Model:
        if not has_ranges(model):
            ctx.skip(self, None, "no activation was quantized before it")
            return model
        if importlib.util.find_spec("torch") is None:
            ctx.skip(self, None, "learning needs torch: pip install 'edgebm[train]'")
            return model
        samples = ctx.training or ctx.given("learning how to round")
        if len(samples) < _FEWEST:
            ctx.skip(self, None, f"it learns from {_FEWEST} samples or more")
            return model
        from edgebm.grad.simulated import simulated

        lowered = ctx.lower(model)
        rounded = with_rounded_cells(lowered)
        whole = simulated(rounded, model)
        layers = {reader for w in whole.weights if w.params is not None for reader in w.readers}
        if not layers:
            ctx.skip(self, None, "no layer with a decided weight is lowered to integers")
            return model
        plan = stages(model, lambda node: node.name in layers)
        first = next(iter(samples.feeds(0, 1)))
        fitting = _LIMIT_BYTES // (_COPIES * most_bytes(model, plan, first))
        picked, count = spread_out(samples, min(self.samples, max(_FEWEST, fitting)))
        work = _Work(_Graphs(model, rounded, whole), plan, list(picked))
        effort = self._effort(model, plan, first, count, ctx.seed)
        return self._learned(work, effort, lowered, ctx)

    def _effort(
        self, model: Model, plan: Sequence[Stage], first: Feeds, count: int, seed: int
    ) -> Effort:
        from edgebm.grad.rounding import Effort

        layers = {node.name for stage in plan for node in stage.layers}
        macs = sum(
            t.macs for t in terms_of(model, (), value_shapes(model, first)) if t.node in layers
        )
        fixed = _SECONDS_PER_STEP * sum(bool(stage.layers) for stage in plan)
        sample = 3 * macs / _MACS_PER_SECOND
        steps, batch = self.steps, self.batch
        if steps == "auto":
            # Large models learn from fewer samples at once before they take fewer steps.
            fitting = int((self.seconds / _STEPS[0] - fixed) / sample)
            batch = min(batch, max(fitting, _SMALLEST_BATCH))
            steps = int(np.clip(self.seconds / (fixed + sample * batch), *_STEPS))
        return Effort(steps, max(1, count // _HELD_OUT), batch=batch, rate=self.rate, seed=seed)

    def _learned(self, work: _Work, effort: Effort, lowered: Model, ctx: Context) -> Model:
        model, count = work.graphs.floats, len(work.samples)
        before = model.clone()
        trained = [stage for stage in work.plan if stage.layers]
        done, total = 0, len(trained) * effort.steps
        told = []
        for stage in work.plan:

            def progress(steps: int, _: int, done: int = done) -> None:
                ctx.progress(self.kind, done + steps, total)

            found = work.advance(stage, effort, progress)
            done += effort.steps if stage.layers else 0
            if found is not None and not isinstance(found, str):
                if found.after < found.before:
                    _write(model, stage, found, work.graphs.whole)
                    change = f"{_db(found.before)} to {_db(found.after)}"
                    told.append(f"{stage.writes[-1]} {change}")
                    continue
                found = "its stage did not get better on held-out samples; it rounds to nearest"
            for node in stage.layers:
                ctx.skip(self, node.name, found or "?")
        ctx.progress(self.kind, total, total)
        if not told:
            return before
        held = work.samples[count - effort.held_out :]
        gain = worst_gain_db(before, lowered, ctx.lower(model), held, lambda: None)
        if gain <= 0:
            ctx.skip(self, None, f"the worst output loses {-gain:.2f} dB by it; all is taken back")
            return before
        ctx.notes.append(
            f"rounding was learned in {len(told)} of {len(trained)} stages, {effort.steps} steps "
            f"each on {count - effort.held_out} samples; the worst output gains {gain:.1f} dB on "
            f"{effort.held_out} others; SQNR of each stage in dB: {', '.join(told)}"
        )
        return model


@dataclass(frozen=True, slots=True)
class _Graphs:
    """The float graph, the one with rounding, and that one with its roundings as taps."""

    floats: Model
    rounded: Model
    whole: Simulated


class _Work:
    """The stages one after the other, and the values between them."""

    def __init__(self, graphs: _Graphs, plan: Sequence[Stage], samples: list[Feeds]) -> None:
        self.graphs, self.plan, self.samples = graphs, plan, samples
        self._frontier = Frontier(plan, samples)
        shared: dict[str, set[int]] = {}
        for number, stage in enumerate(plan):
            for node in stage.layers:
                shared.setdefault(name(node.inputs[1]), set()).add(number)  # type: ignore[arg-type]
        self._shared = {label for label, numbers in shared.items() if len(numbers) > 1}

    def advance(
        self, stage: Stage, effort: Effort, progress: Callable[[int, int], None]
    ) -> Learned | str | None:
        """Go past the next stage: what was learned, why nothing was, or None without layers."""
        frontier = self._frontier
        exact = run_stage(self.graphs.floats, stage, frontier.exact, plain=False)
        found = self._learn(stage, exact, effort, progress) if stage.layers else None
        if found is None or isinstance(found, str):
            rounded = run_stage(self.graphs.rounded, stage, frontier.rounded, plain=True)
        else:
            rounded = found.outputs
        frontier.move(exact, rounded)
        return found

    def _learn(
        self,
        stage: Stage,
        exact: Sequence[Row],
        effort: Effort,
        progress: Callable[[int, int], None],
    ) -> Learned | str:
        from edgebm.grad.rounding import learn
        from edgebm.grad.stage_graph import stage_graph

        if reason := self._why_not(stage, exact):
            return reason
        rows = self._frontier.rounded
        graph = stage_graph(self.graphs.whole, cut_out(self.graphs.whole.model, stage, rows[0]))
        graph.inputs = [{label: row[label] for label in stage.reads} for row in rows]
        graph.targets = exact
        try:
            return learn(graph, effort, progress)
        except UnsupportedModel as cause:
            return f"its stage cannot be trained: {cause}"

    def _why_not(self, stage: Stage, exact: Sequence[Row]) -> str:
        if any(name(node.inputs[1]) in self._shared for node in stage.layers):  # type: ignore[arg-type]
            return "a layer of another stage has the same weight; it rounds to nearest"
        if any(node.op_type == "BatchNormalization" for node in stage.nodes):
            return "its stage has a BatchNormalization that was not folded; it rounds to nearest"
        if any(exact[0][label].dtype != np.float32 for label in stage.writes):
            return "its stage gives numbers that are not float32; it rounds to nearest"
        return ""


def _write(model: Model, stage: Stage, found: Learned, whole: Simulated) -> None:
    """Leave what was learned on the weights and outputs of the layers of a stage."""
    nodes = {node.name: node for node in stage.layers}
    for weight in whole.weights:
        for reader in weight.readers:
            node = nodes.get(reader)
            if node is None or weight.params is None:
                continue
            value = node.inputs[1]
            assert value is not None
            set_rounded(value, weight.params, found.integers[weight.label])
    for node in stage.layers:
        learned, array = found.biases.get(node.name or "?"), const(node.inputs[1])
        if learned is None or array is None or why_no_bias(node, output_channels(node, array)):
            continue
        set_shift(node.outputs[0], shift_to(node, learned))


def _db(error: float) -> str:
    return "exact" if error == 0 else f"{decibels(1.0, error):.1f}"
