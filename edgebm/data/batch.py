"""What every source is turned into: batches of columns, keyed by input name."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from edgebm.data.columns import ArrayColumn, Column
from edgebm.errors import DataError
from edgebm.spec import TensorSpec

LABELS = "labels"
Feeds: TypeAlias = dict[str, NDArray[Any]]


@dataclass(frozen=True, slots=True)
class Batch:
    """Samples that lie together. `where` names them in messages ("", "item 3", a file)."""

    columns: Mapping[str, Column]
    labels: Column | None = None
    where: str = ""

    def __len__(self) -> int:
        return next(iter(self.columns.values())).shape[0]


def named_batch(columns: Mapping[str, Column], inputs: Sequence[TensorSpec], where: str) -> Batch:
    """Take the labels out, and let a single array be the only input whatever its name is."""
    values = dict(columns)
    names = [spec.name for spec in inputs]
    labels = values.pop(LABELS, None) if LABELS not in names else None
    if len(values) == 1 and len(names) == 1:
        values = {names[0]: next(iter(values.values()))}
    if not values:
        raise DataError(
            f"{where or 'the samples'} hold no input array",
            hint=f"the model takes {', '.join(map(str, inputs))}",
        )
    return Batch(values, labels, where)


def item_batch(
    item: Any, inputs: Sequence[TensorSpec], where: str, states: Sequence[TensorSpec] = ()
) -> Batch:
    """One item of an iterable: a dict, a tuple in input order, an array, or (inputs, label).

    A dict may also hold `states`.

    An array of the input's own rank is a batch along axis 0, unless that axis has a fixed size
    other than 1; then, and with one rank less, it is one sample.

    Raises:
        DataError: an item of another kind, or a label count that is not the sample count.
    """
    batch = whole_batch(item, inputs, where)
    ranks = {spec.name: spec for spec in (*inputs, *states)}
    columns = {
        name: ArrayColumn(_rows(_held(column), ranks[name])) if name in ranks else column
        for name, column in batch.columns.items()
    }
    count = min((c.shape[0] for c in columns.values() if c.shape), default=0)
    if batch.labels is None:
        return replace(batch, columns=columns)
    label = _held(batch.labels)
    if label.ndim == 0 or (label.shape[0] != count and count == 1):
        label = label[None]
    if label.shape[0] != count:
        raise DataError(
            f"{where}: {count} samples came with {label.shape[0]} labels",
            hint="every sample needs one label",
        )
    return Batch(columns, ArrayColumn(label), where)


def whole_batch(value: Any, inputs: Sequence[TensorSpec], where: str) -> Batch:
    """A whole set held in memory: dict of arrays, array, tuple of arrays, (inputs, labels)."""
    if isinstance(value, Mapping):
        return named_batch(
            {str(k): ArrayColumn(as_array(v)) for k, v in value.items()}, inputs, where
        )
    parts = _parts(value)
    if parts is None:
        return Batch({inputs[0].name: ArrayColumn(as_array(value))}, None, where)
    first = parts[0] if parts else None
    if len(parts) == 2 and (isinstance(first, Mapping) or (first is not None and _parts(first))):
        batch = whole_batch(first, inputs, where)
        return replace(batch, labels=ArrayColumn(as_array(parts[1])))
    if len(parts) not in (len(inputs), len(inputs) + 1):
        raise DataError(
            f"{where or 'the samples'}: a tuple of {len(parts)} for a model with "
            f"{len(inputs)} input{'s' if len(inputs) > 1 else ''}",
            hint="give the inputs in order, one label more, or a dict by input name",
        )
    arrays = [ArrayColumn(as_array(part)) for part in parts]
    columns = {spec.name: array for spec, array in zip(inputs, arrays, strict=False)}
    return Batch(columns, arrays[-1] if len(arrays) > len(inputs) else None, where)


def as_array(value: Any) -> NDArray[Any]:
    """A numpy array of an array, a tensor with `.numpy()`, a number or nested lists of numbers.

    Raises:
        DataError: it is none of these.
    """
    for step in ("detach", "cpu"):
        if hasattr(value, step):
            value = getattr(value, step)()
    try:
        array = np.asarray(value.numpy() if hasattr(value, "numpy") else value)
    except (TypeError, ValueError, RuntimeError) as cause:
        raise DataError(
            f"a {type(value).__name__} in the samples is no array: {cause}",
            hint="give numpy arrays, tensors, or dicts of them by input name",
        ) from cause
    if array.dtype.hasobject:
        raise DataError(
            f"a {type(value).__name__} in the samples is no numeric array",
            hint="give numpy arrays, tensors, or dicts of them by input name",
        )
    return array


def _parts(value: Any) -> list[Any] | None:
    """The elements of a tuple, or of a list that holds arrays; None for array-like values."""
    if isinstance(value, tuple):
        return list(value)
    if isinstance(value, list) and value and not isinstance(value[0], (int, float, list)):
        return list(value)
    return None


def _held(column: Column) -> NDArray[Any]:
    if not isinstance(column, ArrayColumn):
        raise TypeError("items of an iterable are held in memory")
    return column.array


def _rows(array: NDArray[Any], spec: TensorSpec) -> NDArray[Any]:
    rank = len(spec.shape)
    one_whole = array.ndim == rank and not has_batch_axis(spec)
    return array[None] if one_whole or array.ndim == rank - 1 or array.ndim == 0 else array


def has_batch_axis(spec: TensorSpec) -> bool:
    """Whether axis 0 can stand for samples: it is free, or has size 1."""
    return bool(spec.shape) and (isinstance(spec.shape[0], str) or spec.shape[0] == 1)
