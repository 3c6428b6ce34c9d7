"""Samples of models with state: single steps, or sequences whose axis 1 is time."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from edgebm.data.batch import Batch, has_batch_axis
from edgebm.data.columns import Column
from edgebm.spec import TensorSpec

Kind = Literal["step", "sequence", "whole"]


@dataclass(frozen=True, slots=True)
class Whole:
    """An input of the sequence model that a streaming model was made from.

    `axis` is its time axis; None for an input that is the same for all steps.
    """

    spec: TensorSpec
    axis: int | None


@dataclass(frozen=True, slots=True)
class Steps:
    """How samples of a model with state are read.

    `states` are inputs that may be left out. `whole` has what the inputs of a streaming model
    were before: samples in that form are sequences too.
    """

    states: frozenset[str] = frozenset()
    whole: Mapping[str, Whole] = field(default_factory=dict)

    def fed(self, inputs: Sequence[TensorSpec]) -> list[TensorSpec]:
        """The inputs that are new at each step."""
        return [spec for spec in inputs if spec.name not in self.states]


STATELESS = Steps()


@dataclass(frozen=True, slots=True)
class Sized:
    """The shape of an array without the array."""

    shape: tuple[int, ...]


def is_sequences(batch: Batch, inputs: Sequence[TensorSpec], steps: Steps) -> bool:
    """Whether the batch holds sequences; one that fits neither form counts as single steps."""
    kinds = _kinds(batch, inputs, steps).values()
    return any(kind != "step" for kind in kinds)


def sequence_faults(batch: Batch, inputs: Sequence[TensorSpec], steps: Steps) -> Iterator[str]:
    """What is wrong with the time axes of a batch of sequences, but for the rest of the shapes."""
    if not steps.states or not is_sequences(batch, inputs, steps):
        return
    known = {spec.name: spec for spec in inputs}
    kinds = _kinds(batch, inputs, steps)
    timeless = {key for key, whole in steps.whole.items() if whole.axis is None}
    single = [key for key, kind in kinds.items() if kind == "step" and key not in timeless]
    shown = {key: f"'{key}' {list(batch.columns[key].shape)}" for key in kinds}
    if single:
        rest = [key for key in kinds if kinds[key] != "step"]
        yield (
            f"{', '.join(shown[key] for key in rest)} hold sequences (axis 1 is time), and "
            f"{', '.join(f'{shown[key]} for {known[key]}' for key in single)} do not: give every "
            "input that is no state with the same time axis"
        )
    counts = {
        key: length(batch.columns[key].shape, known[key], steps)
        for key, kind in kinds.items()
        if kind != "step"
    }
    counts = {key: count for key, count in counts.items() if count is not None}
    if any(count == 0 for count in counts.values()):
        empty = [shown[key] for key, count in counts.items() if count == 0]
        yield f"sequences of length 0: {', '.join(empty)}; leave them out"
    elif len(set(counts.values())) > 1:
        pairs = ", ".join(f"{shown[key]} has {count}" for key, count in counts.items())
        yield f"the sequences differ in their number of steps: {pairs}"


def length(shape: tuple[int, ...], spec: TensorSpec, steps: Steps) -> int | None:
    """Steps in each row of an array of sequences [N, ...]; None where it has no time axis."""
    kind = _kind(shape[1:], spec, steps)
    if kind == "sequence":
        return shape[1]
    whole = steps.whole.get(spec.name)
    if kind == "step" or whole is None or whole.axis is None:
        return None
    return _filled(shape[1:], whole)[whole.axis]


def step_column(
    column: Column, spec: TensorSpec, steps: Steps
) -> tuple[TensorSpec, Column | Sized]:
    """What the shape of a column is to be judged by: the spec of one step, or of the whole."""
    kind = _kind(column.shape[1:], spec, steps)
    if kind == "sequence":
        return spec, Sized((*column.shape[:1], *column.shape[2:]))
    if kind == "whole":
        whole = steps.whole[spec.name]
        shape = tuple(
            f"{dim}" if axis != whole.axis else f"{spec.name} steps"
            for axis, dim in enumerate(whole.spec.shape)
        )
        dims = tuple(
            free if isinstance(dim, str) or axis == whole.axis else dim
            for axis, (dim, free) in enumerate(zip(whole.spec.shape, shape, strict=True))
        )
        return TensorSpec(spec.name, spec.dtype, dims), column
    return spec, column


def unrolled(row: NDArray[Any], spec: TensorSpec, steps: Steps, count: int) -> NDArray[Any]:
    """One sequence as [T, *shape of a step], a batch axis of 1 included.

    Args:
        row: one row of an array of sequences, in any form that is allowed.
        spec: the input of the step model.
        steps: how samples are read.
        count: T, for an input without a time axis, which is repeated.
    """
    kind = _kind(row.shape, spec, steps)
    whole = steps.whole.get(spec.name)
    if kind == "sequence":
        return row[:, None] if row.ndim == len(spec.shape) else row
    if whole is not None:
        row = row.reshape(_filled(row.shape, whole))
    if kind == "step" or whole is None or whole.axis is None:
        if row.ndim == len(spec.shape) - 1:
            row = row[None]
        return np.broadcast_to(row, (count, *row.shape))
    return np.expand_dims(np.moveaxis(row, whole.axis, 0), whole.axis + 1)


def _filled(shape: tuple[int, ...], whole: Whole) -> tuple[int, ...]:
    """The shape with the batch axis that samples leave out."""
    return shape if len(shape) == len(whole.spec.shape) else (1, *shape)


def _kinds(batch: Batch, inputs: Sequence[TensorSpec], steps: Steps) -> dict[str, Kind]:
    return {
        spec.name: _kind(batch.columns[spec.name].shape[1:], spec, steps)
        for spec in steps.fed(inputs)
        if spec.name in batch.columns
    }


def _kind(row: tuple[int, ...], spec: TensorSpec, steps: Steps) -> Kind:
    """By the rank alone: what else is wrong with a shape is said where shapes are judged."""
    rank = len(spec.shape)
    alone = rank - 1 if has_batch_axis(spec) else rank
    whole = steps.whole.get(spec.name)
    if whole is not None and whole.axis is not None:
        batch = whole.axis != 0 and has_batch_axis(whole.spec)
        if len(row) == len(whole.spec.shape) - batch:
            return "whole"
    if not steps.states or len(row) <= alone:
        return "step"
    return "sequence"
