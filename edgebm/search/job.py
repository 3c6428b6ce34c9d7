"""What is to be compressed, for what and judged by what."""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from numpy.typing import NDArray

from edgebm.data.samples import Samples
from edgebm.exec.carry import States, carried
from edgebm.ir.model import Model
from edgebm.ir.patterns import is_listed
from edgebm.ir.traits import RECURRENT
from edgebm.passes.base import Skip
from edgebm.passes.catalog import AnyStep
from edgebm.passes.gru_reset_before import GruResetBefore
from edgebm.passes.quantize_recurrent import QuantizeRecurrent
from edgebm.recipe import Recipe
from edgebm.search.candidates import Face
from edgebm.search.choose import Limits
from edgebm.search.gate import QualityGate
from edgebm.search.judge import Judge, Run
from edgebm.search.shapes import ShapeLists, profile_axes, static_shapes
from edgebm.search.stateful import Wanted
from edgebm.spec import Shapes

Progress = Callable[[str, int, int], None]


def quiet(step: str, done: int, total: int) -> None:
    """Progress that nobody wants to see."""


@dataclass(frozen=True, slots=True)
class Options:
    """Arguments of `compress` that are plain values; see there."""

    subset_size: int | None = None
    ignored: tuple[str, ...] = ()
    shapes: ShapeLists = field(default_factory=dict)
    threads: tuple[int, ...] = ()
    seed: int = 0
    measure_s: float = 60.0
    budget_s: float | None = None
    max_drop: float | None = None
    limits: Limits = field(default_factory=Limits)
    gates: tuple[QualityGate, ...] = ()
    wanted: Wanted = field(default_factory=Wanted)


@dataclass(slots=True)
class Job:
    """One model, its samples and its judge. `warnings` and `notes` are sentences for the report.

    `made_up` says that the user gave nothing to calibrate with: `calibration`, and without
    samples to evaluate on `evaluation` too, are numbers that only measure.

    Of a model with state, `calibration` and `calls` are single steps with the states that the
    float model has there, and `evaluation` are the samples as given: sequences, over which each
    candidate carries its own state. Of others, `calls` and `evaluation` are the same.

    `training` are all samples that nothing is judged by; `calibration` are some of them.
    `original` is what is to be compressed and what all is compared with: `model` itself, but for
    a smaller student in its place (`student`).
    """

    model: Model
    face: Face
    recipe: Recipe
    options: Options
    calibration: Samples
    evaluation: Samples
    judged_by: Callable[[Run], Judge]
    warnings: list[str]
    made_up: bool = False
    states: States = field(default_factory=lambda: States((), ()))
    notes: list[str] = field(default_factory=list)
    calls: Samples = field(init=False)
    training: Samples = field(init=False)
    original: Model = field(init=False)

    def __post_init__(self) -> None:
        self.calls, self.training = self.evaluation, self.calibration
        self.original = self.model

    def student(self, model: Model) -> Job:
        """The same job with a smaller model, which `original` has taught, in its place."""
        job = copy.copy(self)
        job.model = model
        return job

    @property
    def is_student(self) -> bool:
        """Whether `model` is a smaller one than the one to be compressed."""
        return self.model is not self.original

    @property
    def steps(self) -> tuple[AnyStep, ...]:
        """The recipe's steps to quantize that can be taken: without samples, which need none."""
        return tuple(s for s in self.recipe.quantizing if not (self.made_up and s.needs_samples))

    @property
    def left_out(self) -> tuple[Skip, ...]:
        """The recipe's other steps, without those for recurrent layers where there are none."""
        idle = () if any(self.model.nodes(*RECURRENT)) else (GruResetBefore, QuantizeRecurrent)
        taken = {*self.steps, *(() if self.made_up else self.recipe.shrinking)}
        lost = [s for s in self.recipe.steps if s not in taken and not isinstance(s, idle)]
        return tuple(Skip(step.kind, "?", "it needs samples (-d)") for step in lost)

    def sample(self) -> Mapping[str, NDArray[Any]]:
        """The sample whose shape is timed: the first one of evaluation, or a step of it."""
        return next(iter(self.calls.feeds(0, 1)))

    def as_run(self, run: Run) -> Run:
        """`run`, one call of the model, as judges call it: with sequences where it has a state."""
        return carried(run, self.states) if self.states.pairs else run

    def static_shapes(self) -> tuple[Shapes, ...]:
        """Shape sets that get a compiled copy of their own; none where shapes grow."""
        if self.states.growing:
            return ()
        shapes = {name: value.shape for name, value in self.sample().items()}
        return static_shapes(self.face, self.options.shapes, shapes)

    def profile_axes(self) -> dict[str, tuple[int, int, int]]:
        """The sizes of free axes that engines are compiled for: of samples, and those listed."""
        sample = {name: value.shape for name, value in self.sample().items()}
        inputs = {spec.name for spec in self.face.inputs}
        scanned = self.calibration.scan().shapes
        seen = [{n: s} for n, shapes in scanned.items() if n in inputs for s in shapes]
        return profile_axes(self.face, [*seen, *self.static_shapes()], sample, self.states.axes)

    def is_ignored(self, name: str, op_type: str) -> bool:
        """Whether the user wants this node in float."""
        return is_listed(name, op_type, self.options.ignored)
