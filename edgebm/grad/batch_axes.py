"""Along which axis of each input samples can be joined; proved on numbers."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from itertools import product

import torch
from torch import Tensor

from edgebm.grad.module import GraphModule
from edgebm.grad.rows import Alike

_MOST = 64  # ways that are tried
_TOLERANCE = 1e-3  # relative; a wrong axis is wrong by far more


@torch.no_grad()
def batch_axes(modules: Sequence[GraphModule], pair: Alike) -> dict[str, int] | None:
    """For each input the axis along which two samples may be joined, or None.

    That is so where every module answers both as it answers each of them. Axis 0 is tried first,
    for all inputs; then axes of size 1.

    Args:
        modules: which must agree.
        pair: two different samples.
    """
    alone = [[module(_first(one)) for one in pair.single()] for module in modules]
    for axes in _ways(pair):
        if all(
            _holds(module, pair, axes, answers)
            for module, answers in zip(modules, alone, strict=True)
        ):
            return axes
    return None


@torch.no_grad()
def output_axes(module: GraphModule, pair: Alike, axes: Mapping[str, int]) -> dict[str, int]:
    """The axis of each output along which the answers to two samples are joined.

    Args:
        module: one that `axes` was found for.
        pair: two different samples.
        axes: where the inputs are joined.
    """
    alone = [module(_first(one)) for one in pair.single()]
    both = module(pair.joined(axes))
    return {k: _joined_at(got, [one[k] for one in alone]) or 0 for k, got in both.items()}


def _first(one: Alike) -> dict[str, Tensor]:
    return {k: v[0] for k, v in one.columns.items()}


def _ways(pair: Alike) -> Iterator[dict[str, int]]:
    names = list(pair.columns)
    places = {
        k: [a for a, size in enumerate(v.shape[1:]) if size == 1] for k, v in pair.columns.items()
    }
    if all(v.ndim > 1 for v in pair.columns.values()):
        yield dict.fromkeys(names, 0)
    tried = 0
    for choice in product(*(places[k] for k in names)):
        if any(choice) and tried < _MOST:
            tried += 1
            yield dict(zip(names, choice, strict=True))


def _holds(
    module: GraphModule,
    pair: Alike,
    axes: Mapping[str, int],
    alone: Sequence[Mapping[str, Tensor]],
) -> bool:
    try:
        both = module(pair.joined(axes))
    except (RuntimeError, IndexError, ValueError):
        return False  # a shape in the graph fits one sample only
    return all(
        _joined_at(got, [answers[label] for answers in alone]) is not None
        for label, got in both.items()
    )


def _joined_at(got: Tensor, parts: Sequence[Tensor]) -> int | None:
    """The axis along which `got` is the `parts` joined, or None."""
    for axis in range(parts[0].ndim):
        want = torch.cat(list(parts), axis)
        if want.shape == got.shape and _is_near(got, want):
            return axis
    return None


def _is_near(got: Tensor, want: Tensor) -> bool:
    if not want.is_floating_point():
        return torch.equal(got, want)
    error = (got - want).double().square().sum()
    return bool(error <= _TOLERANCE**2 * want.double().square().sum())
