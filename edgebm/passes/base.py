"""What a pass is: a frozen, validated value that you can call."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from typing import Any, ClassVar, Protocol

from numpy.typing import NDArray
from pydantic import ConfigDict
from pydantic.dataclasses import dataclass as _checked

from edgebm.errors import DataError, UsageError
from edgebm.ir.model import Model

Feeds = Mapping[str, NDArray[Any]]
STRICT = ConfigDict(extra="forbid", strict=True)
step = _checked(frozen=True, kw_only=True, config=STRICT)


class Samples(Protocol):
    """Calibration samples: sized, and read again from the start by each `feeds()`."""

    def __len__(self) -> int: ...

    def feeds(self, start: int = 0, stop: int | None = None) -> Iterable[Feeds]: ...


@dataclass(frozen=True, slots=True)
class Skip:
    """A node a pass left alone, and why. Skips are results, not log lines."""

    step: str
    node: str
    reason: str


def _no_progress(step: str, done: int, total: int) -> None:
    """Default for `Context.progress`: say nothing."""


def _no_lowering(model: Model) -> Model:
    """Default for `Context.lower`."""
    raise UsageError("this step measures a lowered graph, and the context says not how to lower")


@dataclass(slots=True)
class Context:
    """Everything a pass may use besides the model. Made once per run; there are no globals.

    `observe` names the values of a model that some engine of the target would quantize; `lower`
    writes the decisions on a model as Q/DQ nodes, in a copy, with the placement and the bits that
    every engine of the target comes close to; `is_ignored` is the user's `--ignored`. `skips`
    and `notes` take what the report shall say: what was left alone, and what was done.

    Steps that train learn from `teacher`, the model before any step, on `training`: all samples
    that nothing is judged by, where `samples` are a few of them to calibrate on. `time_ms` is
    the median time of a call of a small float model on the target, measured once and kept; None
    where nothing can be timed. What training has done is kept at `checkpoint`, and a step goes
    on from there. `lanes` are the float32 numbers that the target's processor multiplies at
    once: widths are rounded to multiples of it.
    """

    samples: Samples | None = None
    training: Samples | None = None
    teacher: Model | None = None
    time_ms: Callable[[Model], float] | None = None
    checkpoint: Path | None = None
    lanes: int = 8
    observe: Callable[[Model], frozenset[str]] = lambda model: frozenset()
    lower: Callable[[Model], Model] = _no_lowering
    is_ignored: Callable[[str, str], bool] = lambda name, op_type: False
    seed: int = 0
    skips: list[Skip] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    progress: Callable[[str, int, int], None] = _no_progress

    def given(self, what: str, hint: str = "give them with -d") -> Samples:
        """The calibration samples; `what` needs them.

        Raises:
            DataError: there are none.
        """
        if self.samples is None or len(self.samples) == 0:
            raise DataError(f"{what} needs calibration samples", hint=hint)
        return self.samples

    def counter(self, step: str, total: int) -> Callable[[], None]:
        """What to call after each of `total` samples, so that the user sees the progress."""
        done = 0

        def advance() -> None:
            nonlocal done
            done += 1
            self.progress(step, done, total)

        return advance

    def skip(self, step: Pass, node: str | None, reason: str) -> None:
        """Record that `step` left `node` as it was."""
        self.skips.append(Skip(step.kind, node or "?", reason))


def spread_out(samples: Samples, most: int, first: int = 0) -> tuple[Iterable[Feeds], int]:
    """At most `most` samples at even distances over all of them, and how many they are.

    `first` moves them all along by as many samples.
    """
    stride = -(-len(samples) // most)
    picked = range(len(samples))[first % stride :: stride]
    return islice(samples.feeds(), picked.start, None, stride), len(picked)


class Pass(Protocol):
    """`pass(model, ctx)` owns `model`: it may edit it, and must return a valid one.

    `needs_samples` says whether it reads `ctx.samples`.
    """

    needs_samples: ClassVar[bool]

    @property
    def kind(self) -> str: ...

    def __call__(self, model: Model, ctx: Context, /) -> Model: ...
