"""Cut channels, neurons, heads and hidden units that matter least for what they cost."""

from __future__ import annotations

import importlib.util
import itertools
from dataclasses import replace
from typing import Annotated, ClassVar, Literal

from pydantic import Field

from edgebm.errors import BackendUnavailable, UsageError
from edgebm.exec.compare import decibels
from edgebm.ir.model import Model
from edgebm.ir.patterns import is_listed, lost_patterns
from edgebm.passes.base import Context, spread_out, step
from edgebm.pruning.allocate import Allocation, Budget, Removed, cheapest, uniform
from edgebm.pruning.cost import Costs
from edgebm.pruning.cut import cut
from edgebm.pruning.group import Kind
from edgebm.pruning.groups import Found, find_groups
from edgebm.pruning.importance import importance
from edgebm.pruning.macs import macs
from edgebm.pruning.output_error import OutputError
from edgebm.pruning.refit import refit

_NAMED = 8  # groups in a note


@step
class Prune:
    """Remove units until the fraction `sparsity` of the model's cost is gone.

    Units are what can only be cut together: a channel with all layers that add to it, a neuron,
    an attention head, a hidden unit of a recurrent layer. `of` says what is counted:
    "macs" (multiply-accumulates), "latency" (measured milliseconds of the layers) or "units" (the
    same fraction of each group). Where the target can be timed, widths that its kernels do not
    see are not cut: see `pruning/allocate.py`. `importance` is how units are ranked (see
    `pruning/importance.py`), on `samples` samples.

    Widths end on multiples of `round_to`; "auto" takes the float32 numbers of a vector register
    of the target. `kinds` are the groups that may be cut. `ignored` are names of layers, patterns
    with * and ?, or op types whose units all stay, though what they read may get narrower. With
    several `rounds` importance is computed anew after each.

    With `refit` what reads the removed units is fitted to those that stay, by least squares on the
    same samples (`pruning/refit.py`): in convolutions and recurrent layers most of what cutting
    costs comes back in seconds. Where the model's outputs are no better for it, as in
    Transformers that lose most of their heads, weights stay as they are.

    The model is not trained by it: the step `distill` behind this one does that.
    """

    kind: Literal["prune"] = "prune"
    needs_samples: ClassVar[bool] = True
    sparsity: Annotated[float, Field(ge=0.0, lt=1.0)] = 0.5
    of: Literal["macs", "latency", "units"] = "macs"
    importance: Literal["magnitude", "activation", "taylor", "fisher"] = "fisher"
    samples: Annotated[int, Field(ge=1)] = 256
    round_to: Annotated[int, Field(ge=1)] | Literal["auto"] = "auto"
    kinds: Annotated[tuple[Kind, ...], Field(min_length=1)] = (
        "channels",
        "neurons",
        "heads",
        "hidden",
    )
    ignored: tuple[str, ...] = ()
    rounds: Annotated[int, Field(ge=1)] = 1
    refit: bool = True

    def __call__(self, model: Model, ctx: Context, /) -> Model:
        if not self.sparsity:
            return model
        samples = ctx.given("pruning")
        if self.importance in {"taylor", "fisher"} and importlib.util.find_spec("torch") is None:
            raise BackendUnavailable(
                f"importance {self.importance} takes gradients, and needs torch",
                hint="pip install 'edgebm[train]', or use importance: activation",
            )
        self._check_ignored(model)
        found = self._found(model, ctx)
        for label, reason in found.frozen:
            ctx.skip(self, label, f"its units stay: {reason}")
        if not found.groups:
            ctx.skip(self, None, "no layer has units that may be taken out")
            return model
        if self.of == "latency" and ctx.time_ms is None:
            ctx.notes.append(
                "prune: the target cannot be timed on this machine, so multiply-accumulates were "
                "counted in place of latency"
            )
        feeds = next(iter(samples.feeds(0, 1)))
        before = macs(model, feeds), model.param_count()
        unpaid: dict[str, str] = {}
        for sparsity in _relative(self.sparsity, self.rounds):
            chosen = self._allocation(model, sparsity, ctx)
            unpaid = dict(chosen.unpaid)
            model = self._cut(model, chosen.removed, ctx)
        for label, reason in unpaid.items():
            ctx.skip(self, label, f"no more of its units are cut: {reason}")
        widths = {group.name: group.units for group in found.groups}
        left = {group.name: group.units for group in find_groups(model).groups}
        narrower = [
            f"{label} {units} to {left.get(label, 0)}"
            for label, units in widths.items()
            if left.get(label, 0) < units
        ]
        ctx.notes.append(
            f"pruned from {before[0] / 1e6:.4g} to {macs(model, feeds) / 1e6:.4g} million "
            f"multiply-accumulates and from {before[1]:,} to {model.param_count():,} parameters: "
            + (_listed(narrower) or "no unit was worth cutting")
        )
        return model

    def _cut(self, model: Model, removed: Removed, ctx: Context) -> Model:
        """The model without some units; refitted where the outputs are the better for it."""
        plain = cut(model.clone(), removed)
        if not self.refit or not removed:
            return plain
        samples, fitted = ctx.given("pruning"), model.clone()
        picked, total = spread_out(samples, self.samples)
        advance = ctx.counter(self.kind, total)
        if not refit(fitted, find_groups(model).groups, removed, list(picked), advance):
            return plain
        fitted = cut(fitted, removed)
        error = OutputError(model, list(spread_out(samples, self.samples // 2 + 1, first=1)[0]))
        before, after = error(plain), error(fitted)
        if after >= before:
            ctx.skip(self, None, "weights that read what went stay: refitted, outputs were worse")
            return plain
        ctx.notes.append(
            "what read the units that went was refitted to those that stayed: outputs keep "
            f"{decibels(1.0, after):.1f} dB in place of {decibels(1.0, before):.1f} before any "
            "training"
        )
        return fitted

    def _allocation(self, model: Model, sparsity: float, ctx: Context) -> Allocation:
        """What goes in one round."""
        groups, samples = self._found(model, ctx).groups, ctx.given("pruning")
        picked = list(spread_out(samples, self.samples)[0])

        def progress(done: int, total: int) -> None:
            ctx.progress(self.kind, done, total)

        scores = importance(
            model, groups, self.importance, picked, seed=ctx.seed, progress=progress
        )
        round_to = ctx.lanes if self.round_to == "auto" else self.round_to
        budget = Budget(sparsity, round_to, self.of == "latency" and ctx.time_ms is not None)
        if self.of == "units":
            return uniform(groups, scores, budget)
        return cheapest(groups, scores, Costs(model, groups, picked[0], ctx.time_ms), budget)

    def _found(self, model: Model, ctx: Context) -> Found:
        """The groups that may be cut, and who stays whole."""

        def stays(name: str, op_type: str) -> bool:
            return is_listed(name, op_type, self.ignored) or ctx.is_ignored(name, op_type)

        found = find_groups(model, stays)
        return replace(found, groups=tuple(g for g in found.groups if g.kind in self.kinds))

    def _check_ignored(self, model: Model) -> None:
        """Refuse what names nothing in the model, all at once."""
        if lost := lost_patterns(model, self.ignored):
            raise UsageError(
                f"prune: 'ignored' names nothing in the model: {', '.join(lost)}",
                hint="give node names, patterns such as 'encoder.*', or op types such as Conv",
            )


def _relative(sparsity: float, rounds: int) -> list[float]:
    """What each round removes of what it finds, so that all together remove `sparsity`."""
    left = [1 - sparsity * number / rounds for number in range(rounds + 1)]
    return [1 - after / before for before, after in itertools.pairwise(left)]


def _listed(narrower: list[str]) -> str:
    more = len(narrower) - _NAMED
    return ", ".join(narrower[:_NAMED]) + (f" and {more} more" if more > 0 else "")
