"""Cut channels, neurons, heads and hidden units that matter least for what they cost."""

from __future__ import annotations

import importlib.util
import itertools
from typing import Annotated, ClassVar, Literal

from pydantic import Field

from edgebm.errors import BackendUnavailable, UnsupportedModel, UsageError
from edgebm.ir.model import Model
from edgebm.ir.patterns import is_listed, lost_patterns
from edgebm.passes.base import Context, spread_out, step
from edgebm.pruning.allocate import Allocation, Budget, cheapest, uniform
from edgebm.pruning.cost import Costs
from edgebm.pruning.cut import cut
from edgebm.pruning.group import Group, Kind
from edgebm.pruning.groups import Found, find_groups
from edgebm.pruning.importance import importance
from edgebm.pruning.macs import macs

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
    with * and ?, or op types that stay whole. With several `rounds` importance is computed
    anew after each.

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
        feeds = next(iter(samples.feeds(0, 1)))
        work, params = macs(model, feeds), model.param_count()
        widths = {group.name: group.units for group in self._groups(model, ctx)}
        unpaid: dict[str, str] = {}
        for sparsity in _relative(self.sparsity, self.rounds):
            found = self._allocation(model, sparsity, ctx)
            unpaid = dict(found.unpaid)
            model = cut(model, found.removed)
        for label, reason in unpaid.items():
            ctx.skip(self, label, f"no more of its units are cut: {reason}")
        left = {group.name: group.units for group in find_groups(model).groups}
        narrower = [
            f"{label} {units} to {left.get(label, 0)}"
            for label, units in widths.items()
            if left.get(label, 0) < units
        ]
        ctx.notes.append(
            f"pruned from {work / 1e6:.4g} to {macs(model, feeds) / 1e6:.4g} million "
            f"multiply-accumulates and from {params:,} to {model.param_count():,} parameters: "
            + (_listed(narrower) or "no unit was worth cutting")
        )
        return model

    def _allocation(self, model: Model, sparsity: float, ctx: Context) -> Allocation:
        """What goes in one round."""
        groups = self._groups(model, ctx)
        picked, _ = spread_out(ctx.given("pruning"), self.samples)

        def progress(done: int, total: int) -> None:
            ctx.progress(self.kind, done, total)

        scores = importance(
            model, groups, self.importance, list(picked), seed=ctx.seed, progress=progress
        )
        round_to = ctx.lanes if self.round_to == "auto" else self.round_to
        by_time = self.of == "latency" and ctx.time_ms is not None
        budget = Budget(sparsity, round_to, by_time)
        if self.of == "units":
            return uniform(groups, scores, budget)
        feeds = next(iter(ctx.given("pruning").feeds(0, 1)))
        return cheapest(groups, scores, Costs(model, groups, feeds, ctx.time_ms), budget)

    def _groups(self, model: Model, ctx: Context) -> list[Group]:
        """The groups that may be cut.

        Raises:
            UnsupportedModel: there are none; says of each why not.
        """

        def stays(name: str, op_type: str) -> bool:
            return is_listed(name, op_type, self.ignored) or ctx.is_ignored(name, op_type)

        found = find_groups(model, stays)
        groups = [group for group in found.groups if group.kind in self.kinds]
        if not groups:
            raise UnsupportedModel(
                f"{model.source or 'the model'} has nothing to prune:\n{_reasons(found)}",
                hint="leave out the step prune, or allow more kinds of groups",
                details={"frozen": dict(found.frozen)},
            )
        return groups

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


def _reasons(found: Found) -> str:
    lines = [f"  {name}: stays whole {reason}" for name, reason in found.frozen]
    lines += [f"  {g.name}: its {g.units} units are of the kind {g.kind}" for g in found.groups]
    return "\n".join(lines) or "  no layer has units that could be taken out"
