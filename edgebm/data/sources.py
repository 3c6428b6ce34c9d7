"""Where samples come from: files, folders, named functions and live Python objects."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np

from edgebm.data.batch import LABELS, Batch, item_batch, whole_batch
from edgebm.data.callables import call_user, is_reference, load_callable
from edgebm.data.columns import ArrayColumn, Column
from edgebm.data.file_kinds import DECODED, KINDS, Reading, array_file, file_batch
from edgebm.data.files import open_npy, open_npz
from edgebm.data.fit import raise_faults
from edgebm.data.frames import FrameColumn, size_faults
from edgebm.data.pictures import IMAGE_SUFFIXES
from edgebm.data.sounds import SoundColumn, length_warnings
from edgebm.data.spool import Spool
from edgebm.errors import DataError
from edgebm.spec import TensorSpec


@dataclass(frozen=True, slots=True)
class Source:
    """Batches, what to call them, and the temporary file they may lie in."""

    name: str
    batches: tuple[Batch, ...]
    spool: Spool | None = None
    warnings: tuple[str, ...] = ()

    def close(self) -> None:
        if self.spool is not None:
            self.spool.close()


def open_source(
    source: object,
    inputs: Sequence[TensorSpec],
    limit: int | None,
    reading: Reading,
    states: Sequence[TensorSpec] = (),
) -> Source:
    """Tell the kinds of source apart and open one; `states` are inputs it may leave out.

    Raises:
        DataError: it is none, or cannot be read.
    """
    if not isinstance(source, str | Path):
        return _live(source, inputs, limit, f"{type(source).__name__} object", states)
    if is_reference(str(source)):
        function = load_callable(str(source))
        return _live(call_user(str(source), function), inputs, limit, str(source), states)
    path = Path(source)
    if path.is_dir():
        return _folder(path, inputs, limit, reading)
    if path.suffix.lower() in DECODED:
        batch = file_batch(path, inputs, reading, "")
        _check_sizes(str(path), [batch], inputs)
        return Source(str(path), (batch,), warnings=_length_warnings([batch]))
    return Source(str(path), (array_file(path, inputs),))


def open_labels(path: str | Path) -> Column:
    """Labels from an `.npy` file, or from an `.npz` file with one array or one called labels.

    Raises:
        DataError: neither.
    """
    path = Path(path)
    if path.suffix.lower() == ".npy":
        return open_npy(path)
    columns = open_npz(path)
    if len(columns) != 1 and LABELS not in columns:
        raise DataError(
            f"{path} has no array called {LABELS}; it has {', '.join(columns) or 'none'}",
            hint=f"save it with np.savez(path, {LABELS}=...)",
        )
    return columns[LABELS] if LABELS in columns else next(iter(columns.values()))


def _folder(
    path: Path, inputs: Sequence[TensorSpec], limit: int | None, reading: Reading
) -> Source:
    """Every file below `path` in the order of names; hidden files are left out."""
    files = sorted(
        file
        for file in path.rglob("*")
        if file.is_file() and not any(p.startswith(".") for p in file.relative_to(path).parts)
    )
    if not files:
        raise DataError(f"{path} is an empty folder", hint=KINDS)
    kinds = sorted({file.suffix.lower() or "no suffix" for file in files})
    if len(kinds) > 1 and not set(kinds) <= IMAGE_SUFFIXES:
        raise DataError(
            f"{path} mixes files of several kinds: {', '.join(kinds)}",
            hint="keep only the samples in the folder; labels go in a file of their own",
        )
    batches = []
    count = 0
    for file in files:
        batches.append(file_batch(file, inputs, reading, str(file.relative_to(path))))
        count += len(batches[-1])
        if limit is not None and count >= limit:
            break
    _check_sizes(str(path), batches, inputs)
    return Source(str(path), tuple(batches), warnings=_length_warnings(batches))


def _length_warnings(batches: Sequence[Batch]) -> tuple[str, ...]:
    columns = [column for batch in batches for column in batch.columns.values()]
    return length_warnings([column for column in columns if isinstance(column, SoundColumn)])


def _check_sizes(name: str, batches: Sequence[Batch], inputs: Sequence[TensorSpec]) -> None:
    """Pictures for a model that resizes them itself have the size of its camera's frames."""
    spec = inputs[0]
    columns = {batch.where or name: batch.columns.get(spec.name) for batch in batches}
    frames = {where: c for where, c in columns.items() if isinstance(c, FrameColumn)}
    faults = size_faults(frames, spec) if frames else []
    raise_faults(
        name,
        [f"{len(faults)} of {len(frames)} pictures have another size", *faults] if faults else [],
        "height x width; the host resizes none, as nobody would on the device: bring them to that "
        "size, or give the recipe the size that they have as preprocess.source",
    )


def _live(
    value: Any,
    inputs: Sequence[TensorSpec],
    limit: int | None,
    name: str,
    states: Sequence[TensorSpec],
) -> Source:
    if isinstance(value, Mapping | tuple | np.ndarray) or hasattr(value, "numpy"):
        return Source(name, (whole_batch(value, inputs, ""),))
    if isinstance(value, bytes) or not isinstance(value, Iterable):
        raise DataError(
            f"{name} gave a {type(value).__name__}, not samples",
            hint="give a dict of arrays, an array, or an iterable of dicts, tuples or arrays",
        )
    if isinstance(value, list):
        return Source(name, tuple(_taken(value, inputs, limit, name, states)))
    spool = Spool()
    try:
        kept = [spool.keep(batch) for batch in _taken(value, inputs, limit, name, states)]
    except BaseException:
        spool.close()
        raise
    return Source(name, tuple(kept), spool)


def _taken(
    items: Iterable[Any],
    inputs: Sequence[TensorSpec],
    limit: int | None,
    name: str,
    states: Sequence[TensorSpec],
) -> Iterator[Batch]:
    """Items as batches until there are `limit` samples."""
    count = 0
    walk = iter(items)
    for number, item in enumerate(_guarded(walk, name)):
        batch = item_batch(item, inputs, f"item {number}", states)
        if all(isinstance(c, ArrayColumn) for c in batch.columns.values()):
            count += len(batch)
        yield batch
        if limit is not None and count >= limit:
            return


def _guarded(walk: Iterator[Any], name: str) -> Iterator[Any]:
    """Say whose iterable failed; the user's own code runs in here."""
    while True:
        try:
            items = list(islice(walk, 1))
        except DataError:
            raise
        except Exception as cause:
            raise DataError(
                f"{name} raised {type(cause).__name__}: {cause}",
                hint="the fault lies in that iterable: walk it in Python to see where",
            ) from cause
        if not items:
            return
        yield items[0]
