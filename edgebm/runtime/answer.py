"""What a call gives back: outputs by name, and what there is to say about them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

from numpy.typing import NDArray


@dataclass(frozen=True, slots=True)
class Doubt:
    """Why an answer deserves less trust than others, though it was given.

    `kind` is "nonfinite" (the input has NaN or infinite values) or "envelope" (it has values far
    outside of what calibration saw).
    """

    kind: Literal["nonfinite", "envelope"]
    input: str
    message: str


class Answer(dict[str, NDArray[Any]]):
    """Outputs by name, in the order of the model; the arrays belong to the caller.

    `late` says that the answer came after its deadline, on a runtime that cannot stop a call.
    `doubts` holds what is odd about the inputs.
    """

    late: bool = False
    doubts: tuple[Doubt, ...] = ()
