"""The decisions of a recipe on one model, for the processor of one target."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace

from edgebm.backends.dialects import ONNXRUNTIME_CPU, Dialect, Grid
from edgebm.backends.qdq import lower
from edgebm.backends.runtimes import dialects_of
from edgebm.ir.model import Model
from edgebm.ir.recurrent import cell_of
from edgebm.passes.base import Context, Skip
from edgebm.passes.catalog import AnyStep
from edgebm.passes.driver import run_passes
from edgebm.passes.gru_reset_before import GruResetBefore
from edgebm.search.build import values_to_observe
from edgebm.search.job import Job, Progress
from edgebm.search.simulate import rank_grids
from edgebm.target import Target


def _not_noted(step: str, seconds: float) -> None:
    """Default for `Decisions`: nobody asks how long a step took."""


class Decisions:
    """Runs the steps of the job's recipe, and settles the bits that do not overflow.

    `skips` are the nodes that a step left alone, `notes` decisions worth a sentence.
    """

    def __init__(
        self,
        job: Job,
        target: Target,
        progress: Progress,
        note_seconds: Callable[[str, float], None] = _not_noted,
    ) -> None:
        """`note_seconds` is called with each step and what it took."""
        self._job, self._target, self._progress = job, target, progress
        self._note_seconds = note_seconds
        self.skips: list[Skip] = [*job.left_out]
        self.notes: list[str] = []
        self._grids: list[Grid] = []

    def passes(self) -> Model:
        """The model with the decisions of every step, but for what turns layers into others.

        Raises:
            PassError: see `passes/driver.py`.
        """
        steps = [step for step in self._job.steps if not isinstance(step, GruResetBefore)]
        return self._run(steps, self.context())

    def turned(self, decided: Model) -> Model | None:
        """`decided`, what `passes` gave, with GRUs turned into the form that has an INT8 kernel.

        None where the recipe has no such step, no runtime of the target has the kernel, or no
        GRU was turned. It is a model of its own beside that of `passes`, since turned layers
        answer a bit differently: which of both is taken is measured.

        Raises:
            PassError: see `passes/driver.py`.
        """
        steps = self._job.steps
        every = (d for r in self._target.runtimes for d in dialects_of(r)[:1])
        kernels = {op for dialect in every for op in dialect.cells}
        if "GRU" not in kernels or not any(isinstance(step, GruResetBefore) for step in steps):
            return None
        if not _resetting_after(decided):
            return None
        context = replace(self.context(), skips=[])
        turned = self._run(steps, context)
        # The other steps have told of their skips already.
        self.skips += [s for s in context.skips if s.step == GruResetBefore.kind]
        return turned if _resetting_after(turned) < _resetting_after(decided) else None

    def _run(self, steps: Sequence[AnyStep], context: Context) -> Model:
        decided, seconds = run_passes(self._job.model, steps, context)
        for step, spent in zip(steps, seconds, strict=True):
            self._note_seconds(step.kind, spent)
        return decided

    def context(self) -> Context:
        """What the steps may use."""
        job = self._job
        return Context(
            samples=None if job.made_up else job.calibration,
            training=None if job.made_up else job.training,
            teacher=job.original,
            lanes=self._target.lanes,
            observe=lambda m: values_to_observe(m, self._target.runtimes, job.is_ignored),
            lower=lambda model: lower(model, self.dialect(model), job.is_ignored)[0],
            is_ignored=job.is_ignored,
            seed=job.options.seed,
            skips=self.skips,
            notes=self.notes,
            progress=self._progress,
        )

    def grids(self, decided: Model) -> list[Grid]:
        """Bits that do not overflow here, best first; settled once, when first needed."""
        if not self._grids:
            ranked, note = rank_grids(self._job, self._target, decided, self._progress)
            self._grids = ranked
            self.notes += [note] if note else []
        return self._grids

    def dialect(self, decided: Model) -> Dialect:
        """The placement that every runtime of the target comes close to.

        Where none has integers, that of any: steps look at a model without ranges through it.
        """
        grid = self.grids(decided)[0]
        every = [d for r in self._target.runtimes for d in dialects_of(r, grid)[:1]]
        return every[0] if every else ONNXRUNTIME_CPU


def _resetting_after(model: Model) -> int:
    """How many GRUs have the form without an INT8 kernel."""
    cells = map(cell_of, model.nodes("GRU"))
    return sum(cell is not None and cell.resets_after for cell in cells)
