"""Take whole residual blocks, Transformer layers and recurrent layers out."""

from __future__ import annotations

from typing import Annotated, ClassVar, Literal

from pydantic import Field

from edgebm.errors import BackendFailed
from edgebm.exec.collect import Feeds
from edgebm.exec.compare import decibels
from edgebm.ir.model import Model
from edgebm.ir.shapes import infer_shapes
from edgebm.passes.base import Context, spread_out, step
from edgebm.pruning.block_cost import parts_of
from edgebm.pruning.blocks import Block, find_blocks
from edgebm.pruning.choose_blocks import Choice, Goal, Part, choose_blocks
from edgebm.pruning.drop import drop

_NAMED = 8


@step
class DropBlocks:
    """Remove blocks that a value can go around: see `pruning/blocks.py` for which they are.

    Those go first that change the outputs of the model least for what they cost: their measured
    time where the target can be timed, else their multiply-accumulates. The error at the outputs
    is measured on `samples` samples, and anew after each removal. `sparsity` is the fraction of
    the cost of all blocks that goes; `count` is a number of blocks and takes its place: attention
    and the layers behind it count as two.

    At batch 1 a model with fewer layers is often faster than one with narrower ones. It is not
    trained by this: the step `distill` behind it does that.

    Source:
        Veit et al. 2016, arXiv:1605.06431, section 4: residual networks bear the loss of blocks.
    """

    kind: Literal["drop_blocks"] = "drop_blocks"
    needs_samples: ClassVar[bool] = True
    sparsity: Annotated[float, Field(ge=0.0, lt=1.0)] = 0.3
    count: Annotated[int, Field(ge=0)] | None = None
    samples: Annotated[int, Field(ge=1)] = 128

    def __call__(self, model: Model, ctx: Context, /) -> Model:
        goal = Goal(self.sparsity, self.count)
        if not (goal.sparsity if goal.count is None else goal.count):
            return model
        blocks = find_blocks(model, ctx.is_ignored)
        if not blocks:
            ctx.skip(self, None, "no block of layers can go: nothing is only added to its input")
            return model
        given = ctx.given("choosing the blocks that go")
        feeds = list(spread_out(given, self.samples)[0])
        parts, unit = self._parts(model, blocks, feeds[0], ctx)

        def progress(done: int, total: int) -> None:
            ctx.progress(self.kind, done, total)

        choice = choose_blocks(model, blocks, parts, feeds, goal, progress)
        if not choice.blocks:
            ctx.skip(self, None, _why_none(parts, unit, self.sparsity))
            return model
        ctx.notes.append(_note(choice, parts, unit))
        model = drop(model, choice.blocks)
        infer_shapes(model)
        return model

    def _parts(
        self, model: Model, blocks: list[Block], feeds: Feeds, ctx: Context
    ) -> tuple[list[Part], str]:
        """What the blocks cost, and in which unit."""
        try:
            parts = parts_of(model, blocks, feeds, ctx.time_ms)
        except BackendFailed as cause:
            ctx.skip(self, None, f"its blocks are not timed, work is counted instead: {cause}")
        else:
            if ctx.time_ms is not None:
                return parts, "measured time"
        return parts_of(model, blocks, feeds, None), "multiply-accumulates"


def _why_none(parts: list[Part], unit: str, sparsity: float) -> str:
    total = max(sum(part.cost for part in parts), 1e-30)
    smallest = min(part.cost for part in parts) / total
    return (
        f"no block goes: the smallest has {smallest:.0%} of the {unit} of all of them, and "
        f"{sparsity:.0%} are to go"
    )


def _note(choice: Choice, parts: list[Part], unit: str) -> str:
    share = sum(p.cost for p in choice.parts) / max(sum(part.cost for part in parts), 1e-30)
    names = [block.name for block in choice.blocks[:_NAMED]]
    more = len(choice.blocks) - len(names)
    looked = (
        "; towards the end only the blocks that came first were looked at again"
        if choice.is_partial
        else ""
    )
    return (
        f"{len(choice.parts)} of {len(parts)} blocks were taken out, {share:.0%} of their {unit}, "
        f"those that end at {', '.join(names)}{f' and {more} more' if more else ''}; before any "
        f"training the outputs keep {decibels(1.0, choice.error):.1f} dB{looked}"
    )
