"""What sizes alone determine: computed once for each shape, and kept on the host.

A graph with free axes computes shapes, ranges and masks from the sizes of its inputs. These few
numbers are wanted as numbers by Reshape, Slice and their like; on a GPU each would be waited for.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from edgebm.grad.op import Compute

_REDUCE = ("L1", "L2", "LogSum", "LogSumExp", "Max", "Mean", "Min", "Prod", "Sum", "SumSquare")
# Inputs that are read as numbers: sizes, axes, limits of slices.
NUMBERS: Mapping[str, frozenset[int]] = {
    "Clip": frozenset({1, 2}),
    "ConstantOfShape": frozenset({0}),
    "CumSum": frozenset({1}),
    "Expand": frozenset({1}),
    "OneHot": frozenset({1}),
    "Pad": frozenset({1, 2, 3}),
    "Range": frozenset({0, 1, 2}),
    "Reshape": frozenset({1}),
    "Resize": frozenset({1, 2, 3}),
    "Slice": frozenset({1, 2, 3, 4}),
    "Split": frozenset({1}),
    "Squeeze": frozenset({1}),
    "Tile": frozenset({1}),
    "TopK": frozenset({1}),
    "Trilu": frozenset({1}),
    "Unsqueeze": frozenset({1}),
    **{f"Reduce{kind}": frozenset({1}) for kind in _REDUCE},
}
_SOURCES = frozenset({"Shape", "Size"})
_FEW = 8
_MOST_SHAPES, _MOST_ELEMENTS = 32, 2**20


def is_setting(tensor: Tensor) -> bool:
    """Whether a constant that is not trained may be read from a copy made once.

    Floating-point vectors may not: running moments change, and so may whatever is loaded.
    """
    return not tensor.is_floating_point() or tensor.numel() <= _FEW


def of_sizes(
    nodes: Iterable[tuple[str, Sequence[str | None], Sequence[str]]], settings: Iterable[str]
) -> frozenset[str]:
    """Values that follow from sizes and `settings`; `nodes` are (op, reads, writes) in order."""
    found: set[str] = set()
    held = set(settings)
    for op, reads, writes in nodes:
        given = {read for read in reads if read is not None}
        if op in _SOURCES or (not given.isdisjoint(found) and given <= found | held):
            found.update(filter(None, writes))
    return frozenset(found)


class Remembered:
    """A computation of sizes, done once for each set of arguments.

    Arguments are told apart as objects, which is right because all of them are settings or come
    from here themselves; of the sources, by the shape of what they read.
    """

    def __init__(self, op: str, compute: Compute) -> None:
        self.compute = compute
        self._by_shape = op in _SOURCES
        self._kept: dict[tuple[int, ...], tuple[tuple[Any, ...], Any]] = {}
        self._elements = 0

    def __call__(self, *args: Tensor | None) -> Tensor | tuple[Tensor, ...]:
        held: tuple[Tensor | None, ...] = ()
        if self._by_shape and args[0] is not None:
            key = tuple(args[0].shape)
        else:
            key, held = tuple(map(id, args)), args  # an object that is held keeps its id
        hit = self._kept.get(key)
        if hit is None:
            # A tensor made in inference mode could not be used in training later.
            with torch.inference_mode(mode=False):
                hit = (held, self.compute(*args))
            self._keep(key, hit)
        found: Tensor | tuple[Tensor, ...] = hit[1]
        return found

    def _keep(self, key: tuple[int, ...], hit: tuple[tuple[Any, ...], Any]) -> None:
        found = hit[1]
        size = sum(t.numel() for t in ((found,) if isinstance(found, Tensor) else found))
        if len(self._kept) >= _MOST_SHAPES or self._elements + size > _MOST_ELEMENTS:
            self._kept.clear()
            self._elements = 0
        self._kept[key] = hit
        self._elements += size

    def __deepcopy__(self, _: object) -> Remembered:
        """A copy without memory: in it, ids would be those of other objects."""
        copy = Remembered("", self.compute)
        copy._by_shape = self._by_shape
        return copy


class Brought:
    """A computation on the device of its other arguments, to which some are brought.

    `places` are those of arguments on the host.
    """

    def __init__(self, compute: Compute, places: Sequence[int]) -> None:
        self._compute, self._places = compute, frozenset(places)
        self._kept: dict[tuple[int, torch.device], tuple[Tensor, Tensor]] = {}

    def __call__(self, *args: Tensor | None) -> Tensor | tuple[Tensor, ...]:
        there = next(
            (t.device for i, t in enumerate(args) if t is not None and i not in self._places),
            torch.device("cpu"),
        )
        if there.type == "cpu":
            return self._compute(*args)
        return self._compute(
            *(self._moved(t, there) if i in self._places else t for i, t in enumerate(args))
        )

    def _moved(self, tensor: Tensor | None, device: torch.device) -> Tensor | None:
        if tensor is None:
            return None
        key = (id(tensor), device)
        if key not in self._kept:
            if len(self._kept) >= _MOST_SHAPES:
                self._kept.clear()
            with torch.inference_mode(mode=False):
                self._kept[key] = (tensor, tensor.to(device))
        return self._kept[key][1]

    def __deepcopy__(self, _: object) -> Brought:
        return Brought(self._compute, tuple(self._places))
