"""Residual blocks that can go as a whole, and what each costs and is worth."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import onnx_ir as ir

from edgebm.exec.collect import Feeds, float_run
from edgebm.ir.edit import bypass, const, remove_dead
from edgebm.ir.model import Model
from edgebm.ir.traits import MATMULS, RECURRENT, is_float


@dataclass(frozen=True, slots=True)
class Block:
    """What an Add adds to a value that goes on without it.

    `add` is the name of the Add node, whose input number `operand` takes its place; `nodes` are
    those that nobody else needs, at least one of them a layer with a product.
    """

    add: str
    operand: int
    nodes: tuple[str, ...]


def find_blocks(model: Model) -> list[Block]:
    """Every block that can go, in the order of the graph.

    Both summands must have the shape of the sum: then the graph stays legal without one of them.
    Where both are branches of their own (a shortcut with a convolution) each is a block. A sum
    that is an output of the model stays: without other blocks an input could take its place.
    """
    found = []
    for add in model.nodes("Add"):
        if add.outputs[0].is_graph_output():
            continue
        for branch, rest in ((0, 1), (1, 0)):
            gone, stays = add.inputs[branch], add.inputs[rest]
            if gone is None or stays is None or gone is stays:
                continue
            if not _same_shape(gone, stays, add.outputs[0]) or const(stays) is not None:
                continue
            nodes = _only_for(add, branch)
            if any(node.op_type in MATMULS | RECURRENT for node in nodes):
                names = tuple(node.name or "?" for node in nodes)
                found.append(Block(add.name or "?", rest, names))
    return found


def drop(model: Model, blocks: Sequence[Block]) -> Model:
    """Remove blocks from `model`, in place; the names of what stays survive.

    Blocks whose Add has gone with another one are gone already.
    """
    for block in blocks:
        add = next((node for node in model.nodes("Add") if node.name == block.add), None)
        if add is None:
            continue
        stays = add.inputs[block.operand]
        assert stays is not None
        bypass(add, stays)
        remove_dead(model.graph.graph)
    return model


class OutputError:
    """How far a changed model's outputs are from the original's, on a few samples."""

    def __init__(self, model: Model, samples: Sequence[Feeds]) -> None:
        self._samples = samples
        run = float_run(model)
        self._want = [run(feeds) for feeds in samples]

    def __call__(self, model: Model) -> float:
        """Noise over signal: squared differences by squares, the mean over outputs."""
        run = float_run(model)
        noise: dict[str, float] = {}
        signal: dict[str, float] = {}
        for feeds, want in zip(self._samples, self._want, strict=True):
            for label, got in run(feeds).items():
                if not np.issubdtype(got.dtype, np.floating):
                    continue
                difference = got.astype(np.float64) - want[label]
                noise[label] = noise.get(label, 0.0) + float(np.square(difference).sum())
                power = float(np.square(want[label], dtype=np.float64).sum())
                signal[label] = signal.get(label, 0.0) + power
        shares = [noise[k] / max(signal[k], np.finfo(np.float64).tiny) for k in noise]
        return float(np.mean(shares)) if shares else 0.0


def _same_shape(*values: ir.Value) -> bool:
    shapes = {str(value.shape) for value in values}
    return len(shapes) == 1 and all(v.shape is not None and is_float(v) for v in values)


def _only_for(add: ir.Node, branch: int) -> list[ir.Node]:
    """The nodes that only this operand of the Add needs, in the order of the graph."""
    kept: list[ir.Node] = []
    needed = {add}
    assert add.graph is not None
    before = list(add.graph)
    for node in reversed(before[: before.index(add)]):
        users = [use for value in node.outputs for use in value.uses()]
        outside = any(value.is_graph_output() for value in node.outputs)
        mine = all(
            user in needed and (user is not add or index == branch) for user, index in users
        )
        if users and mine and not outside:
            needed.add(node)
            kept.append(node)
    return kept[::-1]
