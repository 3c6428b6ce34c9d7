"""Which blocks go: one after the other, the one whose loss costs the outputs least."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from edgebm.errors import ModelError
from edgebm.exec.collect import Feeds
from edgebm.ir.model import Model
from edgebm.pruning.blocks import Block
from edgebm.pruning.drop import drop
from edgebm.pruning.output_error import OutputError

# All blocks are looked at on every fourth sample, and the best of them on all samples.
_EVERY, _FEWEST, _BEST = 4, 64, 4
_LOOKS = 400


@dataclass(frozen=True, slots=True)
class Part:
    """Layers that go together, and what they cost: milliseconds or multiply-accumulates."""

    nodes: frozenset[str]
    cost: float


@dataclass(frozen=True, slots=True)
class Goal:
    """How much goes: a fraction of the cost of all parts or, where it is given, a number."""

    sparsity: float
    count: int | None = None


@dataclass(frozen=True, slots=True)
class Choice:
    """Blocks in the order in which they go, and what is left of the outputs then.

    `parts` are what went with them. `error` is that of `OutputError`. `is_partial` says that
    towards the end only the blocks that came first were looked at again.
    """

    blocks: tuple[Block, ...]
    parts: tuple[Part, ...]
    error: float
    is_partial: bool


def choose_blocks(
    model: Model,
    blocks: Sequence[Block],
    parts: Sequence[Part],
    samples: Sequence[Feeds],
    goal: Goal,
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> Choice:
    """Blocks to remove, by the error at the outputs that each adds for what it costs.

    Errors are measured anew after each removal, because blocks make up for each other: of all
    blocks that are left, and after 400 such looks of the four that come first.

    Args:
        model: whole; not changed.
        blocks: of `find_blocks`.
        parts: of `parts_of`.
        samples: what the outputs are compared on.
        goal: of a cost, what comes nearest to it goes.
        progress: called with hundredths of the goal.
    """
    search = _Search(model, blocks, parts, samples, goal)
    whole = max(search.left, 1e-30)
    while search.take_next():
        progress(min(99, round(100 * (1 - search.left / whole))), 100)
    progress(100, 100)
    gone = tuple(part for part in parts if part.nodes <= search.gone)
    return Choice(tuple(search.taken), gone, search.reached, search.is_partial)


class _Search:
    """What is known of the blocks that are left."""

    def __init__(
        self,
        model: Model,
        blocks: Sequence[Block],
        parts: Sequence[Part],
        samples: Sequence[Feeds],
        goal: Goal,
    ) -> None:
        self._model, self._blocks, self._parts = model, list(blocks), parts
        self._counts = goal.count is not None
        cost = sum(part.cost for part in parts)
        self.left = float(goal.sparsity * cost if goal.count is None else goal.count)
        few = samples[::_EVERY] if len(samples) >= _FEWEST else samples
        self._on_all = OutputError(model, samples)
        self._on_few = self._on_all if few is samples else OutputError(model, few)
        self._added: dict[Block, float] = {}
        """What a block was last seen to add to the error."""
        self._found: dict[tuple[OutputError, Block], float] = {}
        self._reached_few, self._looks = 0.0, 0
        self.taken: list[Block] = []
        self.gone: frozenset[str] = frozenset()
        self.reached, self.is_partial = 0.0, False

    def take_next(self) -> bool:
        """Take one more block; False where none fits any more."""
        self._look()
        best: Block | None = None
        for block in sorted(filter(self._fits, self._blocks), key=self._price)[:_BEST]:
            if best is not None and self._price(best) <= self._price(block):
                break  # nor will those behind it be better
            error = self._error(self._on_all, block)
            if error is None:
                return self.take_next()
            self._added[block] = error - self.reached
            if best is None or self._price(block) < self._price(best):
                best = block
        if best is None:
            return False
        self.left -= sum(self._amount(part) for part in self._news(best))
        self.reached = self._found[self._on_all, best]
        self._reached_few = self._found.get((self._on_few, best), 0.0)
        self._found.clear()
        self.taken.append(best)
        self.gone |= frozenset(best.nodes)
        return True

    def _look(self) -> None:
        """See what each block adds now, as long as that is affordable."""
        fitting = [block for block in self._blocks if self._fits(block)]
        self._looks += len(fitting)
        self.is_partial = self.is_partial or (bool(self.taken) and self._looks > _LOOKS)
        if self.is_partial:
            return
        for block in fitting:
            error = self._error(self._on_few, block)
            if error is not None:
                self._added[block] = error - self._reached_few

    def _error(self, measure: OutputError, block: Block) -> float | None:
        """The error without `block`; None, and it is out of the question, where it cannot go."""
        if (measure, block) not in self._found:
            try:
                cut = drop(self._model.clone(), [*self.taken, block])
            except ModelError:
                self._blocks.remove(block)
                return None
            self._found[measure, block] = measure(cut)
        return self._found[measure, block]

    def _news(self, block: Block) -> list[Part]:
        """What would go with it."""
        gone = self.gone | frozenset(block.nodes)
        return [p for p in self._parts if p.nodes <= gone and not p.nodes <= self.gone]

    def _amount(self, part: Part) -> float:
        return 1.0 if self._counts else part.cost

    def _fits(self, block: Block) -> bool:
        """Whether the goal is nearer with it than without it; a number is not exceeded."""
        amount = sum(self._amount(part) for part in self._news(block))
        return block.name not in self.gone and 0 < amount <= (1 if self._counts else 2) * self.left

    def _price(self, block: Block) -> float:
        cost = sum(part.cost for part in self._news(block))
        return max(self._added[block], 0.0) / max(cost, 1e-30)
