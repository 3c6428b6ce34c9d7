"""How far a compressed model's outputs are from the float model's: the metric without labels."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgebm.data.batch import Feeds
from edgebm.data.scores import SQNR_LIMIT, decibels


@dataclass(frozen=True, slots=True)
class Floor:
    """What every output keeps against the float model.

    `sqnr_db` in dB; for [N, C] outputs a `top1` agreement or a mean `cosine` similarity is enough,
    where they are not None; of integers and booleans a share of `equal` elements.
    """

    sqnr_db: float
    top1: float | None
    cosine: float | None
    equal: float

    def __str__(self) -> str:
        text = f"every output keeps {self.sqnr_db:g} dB SQNR against the float model"
        if self.top1 is None or self.cosine is None:
            return text
        return (
            f"{text}; for [N, C] outputs top-1 agreement of {self.top1:g} or mean cosine "
            f"similarity of {self.cosine:g} is enough"
        )


FLOOR = Floor(20.0, 0.97, 0.99, 0.97)
STRICT_FLOOR = Floor(30.0, None, None, 0.999)


@dataclass(frozen=True, slots=True)
class OutputAgreement:
    """One output over all samples.

    `sqnr_db` is 10 log10(sum ref^2 / sum (ref - got)^2), at most 150, which stands for equal.
    `top1` (share of equal argmax, C > 1) and `cosine` (mean over samples) are given for
    [N, C] float outputs, `equal` (share of equal elements) for integers and booleans. `fault`
    says why no figure counts: another shape, or NaN.
    """

    sqnr_db: float
    top1: float | None = None
    cosine: float | None = None
    equal: float | None = None
    fault: str = ""

    def meets(self, floor: Floor) -> bool:
        """Whether the output keeps `floor`."""
        if self.fault:
            return False
        if self.equal is not None:
            return self.equal >= floor.equal
        pairs = ((self.top1, floor.top1), (self.cosine, floor.cosine))
        return self.sqnr_db >= floor.sqnr_db or any(
            value is not None and least is not None and value >= least for value, least in pairs
        )

    def __str__(self) -> str:
        if self.fault:
            return self.fault
        if self.equal is not None:
            return f"{self.equal:.3f} of the values equal"
        parts = [f"{self.sqnr_db:.1f} dB SQNR"]
        if self.top1 is not None:
            parts.append(f"top-1 agreement {self.top1:.3f}")
        if self.cosine is not None:
            parts.append(f"cosine {self.cosine:.4f}")
        return ", ".join(parts)


@dataclass(frozen=True, slots=True)
class Agreement:
    """All outputs, by name, and over how many samples.

    `drift_db` is the worst output's SQNR over the first, the middle and the last step of all
    sequences: what carried states make of an error. None where samples are no sequences.
    """

    outputs: Mapping[str, OutputAgreement]
    samples: int
    drift_db: tuple[float, float, float] | None = None

    @property
    def sqnr_db(self) -> float:
        """The worst output's SQNR in dB: the one number to rank candidates by."""
        return min(
            (o.sqnr_db for o in self.outputs.values() if o.equal is None or o.fault),
            default=SQNR_LIMIT,
        )


def agreement(
    reference: Iterable[Feeds], got: Iterable[Feeds], *, over_time: bool = False
) -> Agreement:
    """Compare outputs sample by sample; both may be generators, read in step.

    Args:
        reference: float model's outputs, a dict by output name for each sample.
        got: the same outputs of the other model.
        over_time: outputs are those of sequences, [T, ...].

    Raises:
        ValueError: one of them ends before the other.
    """
    sums: dict[str, _Sums] = {}
    at: dict[tuple[str, int], _Sums] = {}
    count = 0
    for want, have in zip(reference, got, strict=True):
        count += 1
        for name, array in want.items():
            one, other = np.asarray(array), np.asarray(have[name])
            sums.setdefault(name, _Sums()).add(one, other)
            for place, step in enumerate(_steps(one, other) if over_time else ()):
                at.setdefault((name, place), _Sums()).add(one[step], other[step])
    found = {name: each.result() for name, each in sums.items()}
    return Agreement(found, count, _drift(at) if at else None)


def _steps(one: NDArray[Any], other: NDArray[Any]) -> tuple[slice, ...]:
    """The first, the middle and the last step, each with its axis; none of unequal arrays."""
    if one.shape != other.shape:
        return ()
    last = len(one) - 1
    return tuple(slice(step, step + 1) for step in (0, last // 2, last))


def _drift(at: Mapping[tuple[str, int], _Sums]) -> tuple[float, float, float]:
    first, middle, last = (
        min(each.result().sqnr_db for (_, place), each in at.items() if place == k)
        for k in range(3)
    )
    return first, middle, last


def meets_floor(result: Agreement, floor: Floor = FLOOR) -> tuple[bool, str]:
    """Whether every output keeps the quality floor, and a sentence that says so."""
    low = {name: o for name, o in result.outputs.items() if not o.meets(floor)}
    if not low:
        listed = "; ".join(f"'{name}' {o}" for name, o in result.outputs.items())
        return True, f"agrees with the float model on {result.samples} samples: {listed}"
    listed = "; ".join(f"'{name}' {o}" for name, o in low.items())
    return False, f"differs too much from the float model on {result.samples} samples: {listed}"


def sqnr_db(reference: NDArray[Any], got: NDArray[Any]) -> float:
    """10 log10(sum ref^2 / sum (ref - got)^2) of two arrays of one shape, within +-150 dB."""
    ref = np.asarray(reference, np.float64).reshape(-1)
    error = ref - np.asarray(got, np.float64).reshape(-1)
    return decibels(float(ref @ ref), float(error @ error))


@dataclass(slots=True)
class _Sums:
    signal: float = 0.0
    noise: float = 0.0
    same_best: int = 0
    cosines: float = 0.0
    rows: int = 0
    classes: int = 0
    same: int = 0
    size: int = 0
    whole: bool = False
    flat: bool = True
    fault: str = field(default="")

    def add(self, want: NDArray[Any], have: NDArray[Any]) -> None:
        if want.shape != have.shape:
            self.fault = f"shape {list(have.shape)} instead of {list(want.shape)}"
            return
        if want.dtype.kind in "iub":
            self.whole = True
            self.same += int((want == have).sum())
            self.size += want.size
            return
        want, have = want.astype(np.float64), have.astype(np.float64)
        # A float model that answers NaN or infinity in a place sets no goal there.
        goal = np.isfinite(want)
        if not np.isfinite(have[goal]).all():
            self.fault = "values that are not finite where the float model's are"
            return
        want, have = np.where(goal, want, 0), np.where(goal, have, 0)
        self.signal += float((want * want).sum())
        self.noise += float(((want - have) ** 2).sum())
        self.flat = self.flat and want.ndim == 2
        if self.flat:
            self._add_rows(want, have)

    def _add_rows(self, want: NDArray[Any], have: NDArray[Any]) -> None:
        self.rows += len(want)
        self.classes = want.shape[1]
        if not want.shape[1]:
            return
        self.same_best += int((want.argmax(axis=1) == have.argmax(axis=1)).sum())
        lengths = np.linalg.norm(want, axis=1) * np.linalg.norm(have, axis=1)
        equal = (want == have).all(axis=1)
        dots = (want * have).sum(axis=1)
        cosines = np.divide(dots, lengths, out=np.zeros_like(dots), where=lengths > 0)
        self.cosines += float(np.where(equal, 1.0, cosines).sum())

    def result(self) -> OutputAgreement:
        if self.fault:
            return OutputAgreement(-SQNR_LIMIT, fault=self.fault)
        if self.whole:
            return OutputAgreement(SQNR_LIMIT, equal=self.same / max(1, self.size))
        vector = self.flat and self.rows > 0 and self.classes > 1
        return OutputAgreement(
            decibels(self.signal, self.noise),
            top1=self.same_best / self.rows if vector else None,
            cosine=self.cosines / self.rows if vector else None,
        )
