"""LSTM, GRU and RNN cells written out as matrix products become one node again."""

from __future__ import annotations

from typing import ClassVar, Literal

import onnx_ir as ir

from edgebm.errors import BackendFailed, DataError
from edgebm.exec.agree import largest_error
from edgebm.ir.edit import name, remove_dead, replace_uses
from edgebm.ir.model import Model
from edgebm.ir.shapes import infer_shapes
from edgebm.ir.step_chains import Chain, find_chains
from edgebm.ir.write_steps import write_chain
from edgebm.passes.base import Context, step

_LARGEST_ERROR = 1e-5
_ORDER = ("LSTM", "GRU", "RNN")  # the tanh of an LSTM is no RNN


@step
class RecognizeCells:
    """Put one recurrent node in the place of a cell written out, unrolled steps included.

    A cell is known by what it computes: any order of gates, one matrix product or several, all
    ways to write the sums. The replacement is kept only where ONNX Runtime computes the same
    from random numbers, to a relative error of 1e-5; else the cell stays, with the reason.

    Source:
        The cells of Hochreiter & Schmidhuber 1997 and Cho et al. 2014, arXiv:1406.1078, as the
        ONNX standard defines them.
    """

    kind: Literal["recognize_cells"] = "recognize_cells"
    needs_samples: ClassVar[bool] = False

    def __call__(self, model: Model, ctx: Context, /) -> Model:
        for op in _ORDER:
            refused: set[str] = set()
            # One at a time: the layer behind reads what the one in front was replaced by.
            while (chain := _next(model, op, refused)) is not None:
                reason = self._replaced(model, chain, ctx)
                if reason:
                    refused.add(name(chain.steps[0].out))
                    ctx.skip(self, _producer(chain), reason)
        return model

    def _replaced(self, model: Model, chain: Chain, ctx: Context) -> str:
        """Replace one chain; return why not, or an empty string."""
        nodes = {step.out.producer() for step in chain.steps}
        if any(n is not None and ctx.is_ignored(n.name or "", chain.op) for n in nodes):
            return "it is on the ignored list"
        graph = model.graph.graph
        pairs = write_chain(graph, chain, _label(graph, chain))
        graph.sort()
        infer_shapes(model)
        reason = _why_not_equal(model, chain, pairs)
        if not reason:
            for old, new in pairs.items():
                label = old.name
                replace_uses(old, new)
                old.name, new.name = None, label
        graph.sort()  # what is dead is then removed in one go
        remove_dead(graph)
        return reason


def _next(model: Model, op: str, refused: set[str]) -> Chain | None:
    chains = find_chains(model, op)
    return next((found for found in chains if name(found.steps[0].out) not in refused), None)


def _why_not_equal(model: Model, chain: Chain, pairs: dict[ir.Value, ir.Value]) -> str:
    parts = [part for xs in chain.xs for part in xs]
    parts += [part for part in (chain.h, chain.c) if part is not None]
    try:
        error = largest_error(model, pairs, [part.value for part in parts])
    except (BackendFailed, DataError) as cause:
        return f"it computes an {chain.op}, but the node in its place does not run: {cause}"
    if not error < _LARGEST_ERROR:
        return (
            f"it looks like an {chain.op}, but the node differs by {error:.1e} on random numbers"
        )
    return ""


def _producer(chain: Chain) -> str | None:
    node = chain.steps[0].out.producer()
    return None if node is None else node.name


def _label(graph: ir.Graph, chain: Chain) -> str:
    """`cell/LSTM` for a cell whose nodes are called `cell/...`."""
    scope = (_producer(chain) or "").rpartition("/")[0]
    wanted = f"{scope}/{chain.op}" if scope else f"{chain.op}_cell"
    taken, number = {node.name for node in graph}, 0
    label = wanted
    while label in taken:
        number += 1
        label = f"{wanted}_{number}"
    return label
