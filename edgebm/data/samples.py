"""Samples: what calibration and evaluation read, one at a time, as often as they like."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from types import TracebackType
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgebm.data.batch import Feeds
from edgebm.data.checked import checked_store
from edgebm.data.file_kinds import Reading
from edgebm.data.fit import raise_faults
from edgebm.data.preprocess import Preprocess
from edgebm.data.scan import Scan, non_finite, scan_feeds
from edgebm.data.sounds import Audio
from edgebm.data.sources import open_source
from edgebm.data.steps import STATELESS, Steps
from edgebm.data.store import Store
from edgebm.data.texts import Texts
from edgebm.errors import DataError
from edgebm.spec import TensorSpec

_MEND = "leave those samples out, or mend what writes them"

__all__ = ["Feeds", "Samples", "Scan", "open_samples"]


@dataclass(eq=False)
class Samples:
    """Some samples of a source, in the source's order; made by `open_samples`.

    `warnings` are sentences about what was converted or looks wrong. Samples that were taken
    from an iterable lie in a nameless temporary file until `close`, or until nobody holds them.
    """

    _store: Store
    _indices: Sequence[int]
    warnings: list[str] = field(default_factory=list)
    _scan: Scan | None = None

    def __len__(self) -> int:
        return len(self._indices)

    @property
    def source(self) -> str:
        """Where the samples come from, for people."""
        return self._store.source.name

    def is_of(self, other: Samples) -> bool:
        """Whether both were taken from one opened source, as `split` and `subset` do."""
        return self._store is other._store

    @property
    def inputs(self) -> tuple[TensorSpec, ...]:
        return self._store.inputs

    def feeds(self, start: int = 0, stop: int | None = None) -> Iterator[Feeds]:
        """Samples `start` to `stop`, each a dict of arrays shaped like the model's inputs.

        A batch axis of the model is kept, with size 1. Of `sequences`, arrays that are no states
        are [T, ...] with the shape of a step behind; states may be missing.

        Raises:
            DataError: a sample holds NaN or infinity, or cannot be read.
        """
        for index, feeds in self._store.read(self._indices[start:stop]):
            bad = [name for name, array in feeds.items() if non_finite(array)]
            if bad:
                raise_faults(self.source, [_not_finite(index, feeds, bad)], _MEND)
            yield feeds

    @property
    def sequences(self) -> bool:
        """Whether each sample is a sequence of steps, over which a state is carried."""
        return self._store.sequences

    @property
    def lengths(self) -> list[int]:
        """Steps of each sample; 1 where samples are no sequences."""
        return list(self._store.lengths(self._indices))

    @property
    def has_labels(self) -> bool:
        return self._store.has_labels

    @property
    def labels(self) -> NDArray[Any] | None:
        """Array [samples, ...], or None. Read from the source each time.

        Raises:
            DataError: the labels have different shapes, or hold NaN or infinity.
        """
        if not self.has_labels:
            return None
        rows = [np.asarray(label) for label in self._store.label_rows(self._indices)]
        shapes = {row.shape for row in rows}
        if len(shapes) > 1:
            raise DataError(
                f"{self.source}: the labels have different shapes: {sorted(shapes)}",
                hint="pad the labels to one shape",
            )
        labels = np.stack(rows)
        if what := non_finite(labels):
            raise DataError(f"{self.source}: labels hold {what}", hint=_MEND)
        return labels

    def split(self, holdout_fraction: float = 0.2) -> tuple[Samples, Samples]:
        """Calibration samples, and the last `holdout_fraction` of the set for evaluation.

        A single sample serves as both, with a warning.
        """
        if not 0 < holdout_fraction < 1:
            raise ValueError(f"holdout_fraction must lie between 0 and 1, not {holdout_fraction}")
        if len(self) == 1:
            note = (
                f"{self.source} has one sample: it calibrates and evaluates, which proves little"
            )
            return self._view(self._indices, note), self._view(self._indices, note)
        held_out = min(len(self) - 1, max(1, round(len(self) * holdout_fraction)))
        cut = len(self) - held_out
        seen, held = (
            self._store.classes(part) for part in (self._indices[:cut], self._indices[cut:])
        )
        note = ""
        if held and len(held & seen) * 2 < len(held):
            note = (
                f"most classes in the end of {self.source}, held out for evaluation, are not in "
                "the rest: shuffle the samples, or give evaluation samples of their own"
            )
        return self._view(self._indices[:cut]), self._view(self._indices[cut:], note)

    def subset(self, size: int, seed: int = 0) -> Samples:
        """`size` samples spread evenly: one from each of `size` equal stretches of the set."""
        if size < 1:
            raise DataError(f"a subset of {size} samples", hint="take at least one sample")
        if size >= len(self):
            return self
        # Whole-numbered borders: no sample can be drawn twice.
        borders = np.arange(size + 1) * len(self) // size
        places = np.random.default_rng(seed).integers(borders[:-1], borders[1:])
        return self._view([self._indices[int(place)] for place in places])

    def scan(self) -> Scan:
        """Read every sample once; the result is kept.

        Raises:
            DataError: naming every sample with NaN or infinity, or that does not fit.
        """
        if self._scan is None:
            scan, faults = scan_feeds(
                self._store.read(self._indices), self._store.label_rows(self._indices)
            )
            raise_faults(self.source, faults, _MEND)
            self._scan = scan
        return self._scan

    def digest(self) -> str:
        """sha256 of names, dtypes, shapes and values, labels too; the file format has no part."""
        return self.scan().sha256

    def close(self) -> None:
        """Give up the temporary file, of this set and of every set taken from it."""
        self._store.source.close()

    def __enter__(self) -> Samples:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def _view(self, indices: Sequence[int], note: str = "") -> Samples:
        return Samples(self._store, indices, [*self.warnings, *([note] if note else [])])


def open_samples(  # noqa: PLR0913 - what is optional is given by name
    source: object,
    inputs: Sequence[TensorSpec],
    *,
    limit: int | None = None,
    labels: object = None,
    preprocess: Preprocess | None = None,
    audio: Audio | None = None,
    texts: Texts | None = None,
    steps: Steps = STATELESS,
) -> Samples:
    """Open samples for a model with these inputs; nothing but headers is read from files.

    Args:
        source: an `.npz`, `.npy`, `.txt` or `.jsonl` file; a folder of such, of image or of WAV
            files; `module:function` or `file.py:function`; or live Python: a dict of arrays by
            input name, an array, a tuple, or an iterable of dicts, tuples, arrays or (inputs,
            labels).
        inputs: the model's inputs. Samples lie along axis 0, in the place of a batch axis of
            size 1 or free; an array of one rank more holds each sample whole.
        limit: take only the first so many samples.
        labels: an `.npy` or `.npz` file or an array; wins over labels in the source.
        preprocess: how images become arrays.
        audio: how WAV files become arrays.
        texts: how texts become token ids.
        steps: which inputs are states of a model, so that sequences are allowed.

    Raises:
        DataError: every fault in names, counts, dtypes and shapes at once.
    """
    specs = tuple(inputs)
    if not specs:
        raise DataError("the model has no inputs", hint="there is nothing to give samples to")
    if limit is not None and limit < 1:
        raise DataError(f"a limit of {limit} samples", hint="take at least one sample")
    states = [spec for spec in specs if spec.name in steps.states]
    opened = open_source(
        source, steps.fed(specs), limit, Reading(preprocess, texts, audio), states
    )
    try:
        return Samples(*checked_store(opened, specs, limit, labels, steps))
    except BaseException:
        opened.close()
        raise


def kept_samples(items: Iterable[Feeds], inputs: Sequence[TensorSpec], name: str) -> Samples:
    """Samples made one after the other, each shaped like the model's inputs, kept in a file.

    Args:
        items: what makes them; walked once.
        inputs: of the model.
        name: where they come from, for people.

    Raises:
        DataError: one does not fit, or there is none.
    """
    # One axis more, so that no axis of a sample is taken for that of samples.
    whole = ({key: array[None] for key, array in item.items()} for item in items)
    made = open_samples(whole, inputs)
    made._store = replace(made._store, source=replace(made._store.source, name=name))  # noqa: SLF001
    return made


def _not_finite(index: int, feeds: Feeds, names: Sequence[str]) -> str:
    what = "; ".join(f"input '{name}' holds {non_finite(feeds[name])}" for name in names)
    return f"sample {index}: {what}"
