"""Ids that were padded to one length: batches are cut to the longest of their samples."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import onnx_ir as ir
import torch
from torch import Tensor

from edgebm.grad.module import GraphModule
from edgebm.grad.rows import Rows
from edgebm.ir.edit import name
from edgebm.ir.model import Model

_TRIED = 4  # samples on which it is proved
_TOLERANCE = 1e-3


@dataclass(frozen=True, slots=True)
class Padding:
    """The 0/1 input `mask` [N, T], inputs [N, T] that are cut with it, and samples' lengths."""

    mask: str
    inputs: tuple[str, ...]
    lengths: Tensor

    def cut(self, feeds: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """`feeds` without the positions that no sample of them has."""
        longest = int(feeds[self.mask].sum(1).max())
        return {k: v[:, :longest] if k in self.inputs else v for k, v in feeds.items()}


def found_padding(rows: Rows, pair: Sequence[tuple[Model, GraphModule]]) -> Padding | None:
    """What is padded in all samples, or None.

    There is whole-number input of shape [1, T] or [N, T] with T free in the graphs, whose samples
    are ones and then zeros; all inputs of whole numbers and this shape are cut with it. That this
    is sound is proved on a few samples: the outputs of every module are then the same, but for the
    positions cut.

    Args:
        rows: all samples, in memory.
        pair: graphs and their modules.
    """
    groups = rows.groups
    if len(groups) != 1:
        return None  # of several lengths already, or not in memory
    columns = groups[0].columns
    free = [k for k, v in columns.items() if _is_ids(v) and all(_is_free(m, k) for m, _ in pair)]
    for mask in free:
        held = columns[mask][:, 0]
        lengths = held.sum(1).long()
        if not _is_mask(held) or int(lengths.min()) == held.shape[1]:
            continue
        cut = tuple(k for k in free if columns[k].shape == columns[mask].shape)
        padding = Padding(mask, cut, torch.empty(len(rows), dtype=torch.int64))
        padding.lengths[groups[0].numbers] = lengths
        few = lengths.argsort()[:_TRIED]
        feeds = {k: v[few].flatten(0, 1) for k, v in columns.items()}
        if all(_is_sound(module, feeds, padding) for _, module in pair):
            return padding
    return None


def _is_ids(column: Tensor) -> bool:
    return not column.is_floating_point() and column.ndim == 3 and column.shape[1] == 1


def _is_free(model: Model, label: str) -> bool:
    value = next((v for v in model.graph.graph.inputs if name(v) == label), None)
    return (
        value is not None
        and value.shape is not None
        and isinstance(value.shape[1], ir.SymbolicDim)
    )


def _is_mask(held: Tensor) -> bool:
    """Whether every row is ones and then zeros, with at least one of the former."""
    steps = held[:, 1:] - held[:, :-1]
    binary = bool(((held == 0) | (held == 1)).all())
    return binary and bool((held[:, 0] == 1).all()) and bool((steps <= 0).all())


@torch.no_grad()
def _is_sound(module: GraphModule, feeds: Mapping[str, Tensor], padding: Padding) -> bool:
    device = next(iter(module.weights.values())).device
    feeds = {k: v.to(device) for k, v in feeds.items()}
    try:
        short = module(padding.cut(feeds))
    except (RuntimeError, IndexError, ValueError):
        return False  # some shape in the graph is that of the padded input
    long = module(feeds)
    return all(_is_start(short[k], long[k]) for k in long)


def _is_start(short: Tensor, long: Tensor) -> bool:
    """Whether `short` is `long` without what was cut."""
    if short.ndim != long.ndim:
        return False
    long = long[tuple(slice(size) for size in short.shape)]
    error = (short - long).double().square().sum()
    return bool(error <= _TOLERANCE**2 * long.double().square().sum())
