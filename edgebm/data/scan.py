"""One reading of all samples: their hash, ranges and axis sizes, and what is not finite."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgebm.data.batch import Feeds


@dataclass(frozen=True, slots=True)
class Scan:
    """`ranges` are [low, high] by input; `shapes` are all shapes an input came in.

    `samples` holds a 64-bit hash of each sample's inputs: equal samples have equal ones.
    """

    sha256: str
    ranges: Mapping[str, tuple[float, float]]
    shapes: Mapping[str, frozenset[tuple[int, ...]]]
    samples: NDArray[np.uint64]

    @property
    def distinct(self) -> int:
        """How many different samples there are."""
        return len(np.unique(self.samples))


def non_finite(array: NDArray[Any]) -> str:
    """What is not finite in `array`, as a word; empty when nothing is."""
    if array.dtype.kind not in "fc" or np.isfinite(array).all():
        return ""
    return "NaN" if np.isnan(array).any() else "infinity"


def scan_feeds(
    feeds: Iterable[tuple[int, Feeds]], labels: Iterable[NDArray[Any]]
) -> tuple[Scan, list[str]]:
    """Read (position, sample) pairs once; the faults say which samples hold what."""
    digest = hashlib.sha256()
    ranges: dict[str, tuple[float, float]] = {}
    shapes: dict[str, set[tuple[int, ...]]] = {}
    faults: list[str] = []
    hashes = bytearray()
    for index, sample in feeds:
        own = hashlib.blake2b(digest_size=8)
        for name, array in sample.items():
            _absorb(digest, name, array)
            _absorb(own, name, array)
            shapes.setdefault(name, set()).add(array.shape)
            what = non_finite(array)
            if what:
                faults.append(f"sample {index}: input '{name}' holds {what}")
            elif array.size:
                low, high = ranges.get(name, (np.inf, -np.inf))
                ranges[name] = min(low, float(array.min())), max(high, float(array.max()))
        hashes += own.digest()
    for label in labels:
        _absorb(digest, "", np.asarray(label))
    kept = {name: frozenset(found) for name, found in shapes.items()}
    return Scan(digest.hexdigest(), ranges, kept, np.frombuffer(bytes(hashes), "<u8")), faults


def _absorb(digest: Any, name: str, array: NDArray[Any]) -> None:
    # Length before text, so that no two different samples give the same bytes.
    head = f"{name}|{array.dtype.str}|{array.shape}"
    digest.update(f"{len(head)}:{head}".encode())
    digest.update(np.ascontiguousarray(array).data)
