"""What a judge sees of answers: as they are, or of a sequence every step, or the last one."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgebm.data.batch import Feeds, has_batch_axis
from edgebm.errors import DataError
from edgebm.spec import TensorSpec


@dataclass(frozen=True, slots=True)
class View:
    """Answers of single calls. `hidden` are outputs that a metric shall not see: states."""

    outputs: tuple[TensorSpec, ...]
    hidden: frozenset[str] = frozenset()

    over_time = False

    @property
    def face(self) -> tuple[TensorSpec, ...]:
        """The outputs as a metric sees them."""
        return tuple(spec for spec in self.outputs if spec.name not in self.hidden)

    def compared(self, answers: Feeds) -> Feeds:
        """What is compared with the float model."""
        return answers

    def measured(self, answers: Feeds) -> Feeds:
        """What a metric gets."""
        if not self.hidden:
            return answers
        return {key: array for key, array in answers.items() if key not in self.hidden}


@dataclass(frozen=True, slots=True)
class TimeView(View):
    """Answers [T, ...] of sequences. A step's batch axis, and one of size 1 behind it, are left
    out of it: the scores of a step are [C] whether the model gives [1, C] or [1, 1, C].

    Compared are all steps, as rows [T, C]. A metric sees [1, T, C] with `each_step`, for labels
    [N, T], else the last step, [1, C].
    """

    sizes: Mapping[str, int] = field(default_factory=dict)
    each_step: bool = False

    over_time = True

    @property
    def face(self) -> tuple[TensorSpec, ...]:
        steps = ("steps",) if self.each_step else ()
        return tuple(
            replace(spec, shape=(1, *steps, *self._rest(spec)))
            for spec in self.outputs
            if spec.name not in self.hidden
        )

    def compared(self, answers: Feeds) -> Feeds:
        return {
            spec.name: self._rows(answers[spec.name], spec)
            for spec in self.outputs
            if spec.name not in self.hidden
        }

    def measured(self, answers: Feeds) -> Feeds:
        rows = self.compared(answers)
        if self.each_step:
            return {key: array[None] for key, array in rows.items()}
        return {key: array[-1:] for key, array in rows.items()}

    def _rest(self, spec: TensorSpec) -> tuple[int | str, ...]:
        shape = tuple(self.sizes.get(d, d) if isinstance(d, str) else d for d in spec.shape)
        rest = shape[1:] if has_batch_axis(spec) else shape
        return rest[1:] if len(rest) > 1 and rest[0] == 1 else rest

    def _rows(self, array: NDArray[Any], spec: TensorSpec) -> NDArray[Any]:
        """[T, ...] without the axes that say nothing, which have size 1."""
        kept = len(self._rest(spec))
        dropped = range(1, array.ndim - kept)
        if any(array.shape[axis] != 1 for axis in dropped):
            raise DataError(
                f"output '{spec.name}' is {list(array.shape[1:])} at each step: sequences are "
                "judged one at a time, in a batch of 1"
            )
        return np.squeeze(array, tuple(dropped))


def sees_each_step(
    labels: NDArray[Any], lengths: Sequence[int], outputs: Sequence[TensorSpec]
) -> bool:
    """Whether labels [N, ...] are one for each step, [N, T, ...], or one for each sequence.

    Labels whose rows have the shape of an output are of sequences, also where that is [T].

    Args:
        labels: of all sequences.
        lengths: their steps.
        outputs: as `TimeView.face` shows the last step.

    Raises:
        DataError: they can be neither.
    """
    row, counts = labels.shape[1:], set(lengths)
    if not row or (labels.dtype.kind == "f" and any(row == spec.shape[1:] for spec in outputs)):
        return False
    if counts == {row[0]}:
        return True
    # A label map of the last step has the axes of an output but for the classes.
    if any(len(row) == len(spec.shape) - 2 > 1 for spec in outputs):
        return False
    steps = ", ".join(map(str, sorted(counts)[:4]))
    raise DataError(
        f"labels {list(labels.shape)} for {len(lengths)} sequences of {steps} steps",
        hint=f"give one label for each sequence, [{len(lengths)}], or one for each step, "
        f"[{len(lengths)}, {steps}]",
    )
