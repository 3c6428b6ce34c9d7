"""An opened source, checked: one row of samples that fit the model's inputs."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from itertools import accumulate
from pathlib import Path

import numpy as np

from edgebm.data.batch import LABELS, Batch
from edgebm.data.columns import ArrayColumn, Column
from edgebm.data.fit import batch_faults, narrowing, raise_faults
from edgebm.data.sources import Source, open_labels
from edgebm.data.steps import Steps, is_sequences
from edgebm.data.store import Store
from edgebm.errors import DataError
from edgebm.spec import TensorSpec


def checked_store(
    source: Source,
    inputs: tuple[TensorSpec, ...],
    limit: int | None,
    labels: object,
    steps: Steps,
) -> tuple[Store, range, list[str]]:
    """The source as a row of samples: where they are, which are taken, and warnings.

    Raises:
        DataError: every fault in names, counts, dtypes and shapes at once.
    """
    distinct = list(_distinct(source.batches))
    faults = [fault for batch in distinct for fault in batch_faults(batch, inputs, steps)]
    if not faults and len({is_sequences(batch, inputs, steps) for batch in distinct}) > 1:
        faults.append("some samples are sequences and some single steps")
    if not faults and len({batch.labels is None for batch in source.batches}) > 1:
        faults.append("some samples come with labels and some without")
    raise_faults(source.name, faults)
    counts = [len(batch) for batch in source.batches]
    count = sum(counts)
    if not count:
        raise DataError(
            f"{source.name} has no samples", hint="give samples like those the model will see"
        )
    column = None if labels is None else _labels(labels, source.name, count)
    starts = tuple(accumulate(counts, initial=0))[:-1]
    warnings = [*source.warnings]
    for batch in distinct:
        warnings += [note for note in narrowing(batch, inputs) if note not in warnings]
    taken = count if limit is None else min(limit, count)
    return Store(source, inputs, starts, column, steps), range(taken), warnings


def _distinct(batches: Sequence[Batch]) -> Iterator[Batch]:
    """One batch of each signature: a folder of alike files is judged once."""
    seen: set[object] = set()
    for batch in batches:
        key = _signature(batch)
        if key not in seen:
            seen.add(key)
            yield batch


def _signature(batch: Batch) -> object:
    columns: Mapping[str, Column] = batch.columns
    counts = {c.shape[:1] for c in columns.values()}
    if batch.labels is not None:
        counts.add(batch.labels.shape[:1])
    alike = len(counts) == 1
    key = tuple((name, c.dtype.str, c.shape[1:]) for name, c in columns.items())
    return key if alike else (key, batch.where)


def _labels(labels: object, name: str, count: int) -> Column:
    column = (
        open_labels(labels) if isinstance(labels, str | Path) else ArrayColumn(np.asarray(labels))
    )
    got = column.shape[0] if column.shape else 0
    if got != count:
        raise DataError(
            f"{got} {LABELS} for the {count} samples of {name}",
            hint="labels and samples must be in the same order, one label each",
        )
    return column
