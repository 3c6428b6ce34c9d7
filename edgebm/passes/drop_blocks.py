"""Take whole residual blocks and Transformer layers out."""

from __future__ import annotations

import heapq
import math
from typing import Annotated, ClassVar, Literal

from pydantic import Field

from edgebm.ir.model import Model
from edgebm.ir.shapes import infer_shapes
from edgebm.passes.base import Context, spread_out, step
from edgebm.pruning.blocks import Block, OutputError, drop, find_blocks
from edgebm.pruning.cost import Costs

_NAMED = 8


@step
class DropBlocks:
    """Remove blocks whose output is only added to what goes around them.

    Those go first that change the outputs of the model least for what they cost: their measured
    time where the target can be timed, else their multiply-accumulates. The error at the outputs
    is measured on `samples` samples and anew after each removal, for the blocks that come into
    question next. `sparsity` is the fraction of the cost of all such blocks that goes.

    At batch 1 a model with fewer layers is often faster than one with narrower ones. It is not
    trained by this: the step `distill` behind it does that.

    Source:
        Veit et al. 2016, arXiv:1605.06431, section 4: residual networks bear the loss of blocks.
    """

    kind: Literal["drop_blocks"] = "drop_blocks"
    needs_samples: ClassVar[bool] = True
    sparsity: Annotated[float, Field(ge=0.0, lt=1.0)] = 0.3
    samples: Annotated[int, Field(ge=1)] = 96

    def __call__(self, model: Model, ctx: Context, /) -> Model:
        samples = ctx.given("choosing the blocks that go")
        ops = {node.name or "?": node.op_type for node in model.nodes()}
        blocks = [
            block
            for block in find_blocks(model)
            if not any(ctx.is_ignored(label, ops[label]) for label in (block.add, *block.nodes))
        ]
        if not blocks:
            ctx.skip(self, None, "no block of layers is only added to what goes around it")
            return model
        feeds = list(spread_out(samples, self.samples)[0])
        costs = Costs(model, (), feeds[0], ctx.time_ms)
        cost = {block: sum(map(costs.layer, block.nodes)) for block in blocks}
        gone, error = self._chosen(model, cost, OutputError(model, feeds), ctx)
        share = sum(cost[block] for block in gone) / max(sum(cost.values()), 1e-12)
        names = [block.add for block in gone[:_NAMED]] + ["..."] * (len(gone) > _NAMED)
        what = "time" if costs.is_timed else "multiply-accumulates"
        if gone:
            ctx.notes.append(
                f"{len(gone)} of {len(blocks)} blocks were taken out, {100 * share:.0f} % of "
                f"their {what}: those added at {', '.join(names)}; before any training the "
                f"outputs keep {-10 * math.log10(max(error, 1e-12)):.1f} dB"
            )
        model = drop(model, gone)
        infer_shapes(model)
        return model

    def _chosen(
        self, model: Model, cost: dict[Block, float], error: OutputError, ctx: Context
    ) -> tuple[list[Block], float]:
        """The blocks to remove, the first ones first, and the error at the outputs then."""
        left = self.sparsity * sum(cost.values())
        gone: list[Block] = []
        reached = 0.0
        # What is known of a block was measured when `fresh` blocks were gone; it is looked at
        # again when it comes first.
        queue = [(0.0, place, -1, 0.0) for place in range(len(cost))]
        blocks, total = list(cost), self.sparsity * sum(cost.values())
        while queue:
            _, place, fresh, found = heapq.heappop(queue)
            block = blocks[place]
            if cost[block] > 2 * left:  # further from the goal than without it
                continue
            if fresh == len(gone):
                gone.append(block)
                reached = found
                left -= cost[block]
                ctx.progress(self.kind, round(100 * (total - left)), round(100 * total) + 1)
                continue
            found = error(drop(model.clone(), [*gone, block]))
            price = max(found - reached, 0.0) / max(cost[block], 1e-12)
            heapq.heappush(queue, (price, place, len(gone), found))
        ctx.progress(self.kind, 1, 1)
        return gone, reached
