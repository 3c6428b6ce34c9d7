"""Turn GRUs as PyTorch and Keras write them into the form that has an INT8 kernel."""

from __future__ import annotations

import importlib.util
from collections.abc import Iterator
from typing import TYPE_CHECKING, Annotated, ClassVar, Literal

import numpy as np
import onnx_ir as ir
from pydantic import Field

from edgebm.exec.recurrent_inputs import read_by
from edgebm.ir.edit import set_const
from edgebm.ir.model import Model
from edgebm.ir.recurrent import B, Cell, R, W, cell_of
from edgebm.passes.base import Context, Samples, spread_out, step

if TYPE_CHECKING:
    from edgebm.grad.gru_cell import GruCell, Lesson
    from edgebm.grad.gru_sister import Turned

_LIMIT_BYTES = 2**28  # of what one cell reads over all samples; it is held four times
_FEWEST = 2  # sequences: one to learn from, one to judge by
_HELD_OUT = 5  # every fifth sequence tells how good the new cell is
_STEPS = (50, 400)
# A step of training costs the multiplications of the original, of its sister and, twice as
# many, of the gradients; and 0.1 ms for each step in time, however small the cell.
_MACS_PER_SECOND, _SECONDS_PER_STEP = 40e9, 1e-4
_SLOWEST = 10  # times slower than planned: then the clock cuts training off


@step
class GruResetBefore:
    """Turn each GRU with linear_before_reset=1 into one with 0, which OpenVINO runs in INT8.

    The two forms are not equal: the reset gate acts behind the product with R or in front of
    it. No labels are needed: the sister cell starts from a least squares fit to the sums inside
    the original, and is trained until its states are near the original's, on noisy copies of what
    the cell reads in the calibration samples. Cells are turned one after the other in the order
    of the graph, each reading what the new ones in front of it give, so that it makes up for
    their errors too. The graph around them may hold any op, and the batch axis any size.

    A cell whose states stay under `min_sqnr_db` on sequences that were held out keeps its form.

    `seconds` is what training is planned to take, for all cells together, on two cores with
    AVX-512. The plan is in steps, so that equal inputs give equal weights; a machine that needs
    ten times as long stops there, and the report says so. A number for `steps` is that of each
    cell instead. `rate` is the highest rate; `noise` is relative to each input's deviation.
    """

    kind: Literal["gru_reset_before"] = "gru_reset_before"
    needs_samples: ClassVar[bool] = True
    min_sqnr_db: float = 12.0
    seconds: Annotated[float, Field(gt=0)] = 60.0
    steps: Annotated[int, Field(ge=0)] | Literal["auto"] = "auto"
    rate: Annotated[float, Field(gt=0)] = 8e-3
    noise: Annotated[float, Field(ge=0)] = 0.3

    def __call__(self, model: Model, ctx: Context, /) -> Model:
        found = list(self._found(model, ctx))
        if not found:
            return model
        samples = ctx.given("turning GRUs into the form with an INT8 kernel")
        original = model.clone()
        before = {node.name: cell for node in original.nodes("GRU") if (cell := cell_of(node))}
        for number, cell in enumerate(found):
            share = self.seconds / len(found)
            old = before[cell.node.name]
            taught = [(original, old), (model, cell)]
            lessons = _lessons(taught, samples)
            if lessons is None:
                ctx.skip(self, cell.node.name, "the samples hold fewer than two sequences for it")
                continue
            self._turn(cell, lessons, share, ctx, (number, len(found)))
        return model

    def _found(self, model: Model, ctx: Context) -> Iterator[Cell]:
        """The cells to turn; what stands in the way of the others goes to the report."""
        for node in model.nodes("GRU"):
            if node.attributes.get_int("linear_before_reset", 0) == 0:
                continue
            if ctx.is_ignored(node.name or "", node.op_type):
                continue
            cell = cell_of(node)
            if reason := _why_not(cell):
                ctx.skip(self, node.name, reason)
            elif cell is not None:
                yield cell

    def _turn(
        self,
        cell: Cell,
        lessons: tuple[Lesson, Lesson],
        share: float,
        ctx: Context,
        place: tuple[int, int],
    ) -> None:
        """Train one cell and write it, or say in the report why not."""
        from edgebm.grad.fit import Schedule
        from edgebm.grad.gru_sister import Teaching, turned

        old = _grad_cell(cell)
        cost = _step_seconds(old, lessons[0])
        steps = int(np.clip(share / cost, *_STEPS)) if self.steps == "auto" else self.steps
        limit = _SLOWEST * max(share, steps * cost)
        schedule = Schedule(steps, self.rate, seconds=limit, check_every=max(1, steps // 8))
        number, count = place

        def progress(done: int, total: int) -> None:
            ctx.progress(self.kind, number * total + done, count * total)

        found = turned(old, *lessons, Teaching(schedule, self.noise, ctx.seed), progress)
        if found.reached_db < self.min_sqnr_db:
            ctx.skip(
                self,
                cell.node.name,
                f"its states would keep {found.reached_db:.1f} dB SQNR after {found.steps} steps "
                f"of training, less than the {self.min_sqnr_db:g} asked for; it stays float",
            )
            return
        late = found.ended == "out of time"
        ctx.notes.append(
            f"{cell.node.name} was turned into a GRU that resets before its product, the form "
            f"with an int8 kernel: its states keep {found.reached_db:.1f} dB SQNR after "
            f"{found.steps} steps of training"
            + (f"; the clock stopped it before step {steps}, so runs may differ" if late else "")
        )
        _write(cell, found)


def turnable(node: ir.Node) -> bool:
    """Whether the pass would try to turn this GRU."""
    cell = cell_of(node)
    return cell is not None and cell.resets_after and not _why_not(cell)


def _why_not(cell: Cell | None) -> str:
    if cell is None:
        return "its weights are computed"
    if not cell.is_standard:
        return "it has activations, clipping or a layout of its own"
    if cell.w.dtype != np.float32:
        return f"its weights are {cell.w.dtype.name}, not float32"
    if importlib.util.find_spec("torch") is None:
        return "training its INT8 form needs torch: pip install 'edgebm[train]'"
    return ""


def _lessons(taught: list[tuple[Model, Cell]], samples: Samples) -> tuple[Lesson, Lesson] | None:
    """What the cell and its sister read: sequences to learn from, and those held out."""
    from edgebm.grad.gru_cell import Lesson
    from edgebm.grad.sequences import Sequences

    first = read_by(*taught[0], samples.feeds(0, 1))
    most = max(_HELD_OUT, _LIMIT_BYTES // max(1, first.nbytes))
    reads = [read_by(*each, spread_out(samples, most)[0]) for each in taught]
    if len(reads[0].x) < _FEWEST:
        return None
    joined = [Sequences.joined(read.x, read.initial) for read in reads]
    return Lesson(*joined).split(_HELD_OUT)


def _grad_cell(cell: Cell) -> GruCell:
    from edgebm.grad.gru_cell import GruCell

    shape = (cell.directions, 6 * cell.hidden)
    bias = np.zeros(shape, np.float32) if cell.b is None else cell.b
    return GruCell(cell.w, cell.r, bias, cell.direction, resets_after=True)


def _step_seconds(cell: GruCell, seen: Lesson) -> float:
    """What one step of training takes on the machine that the plan is made for."""
    read = seen.student
    size = read.batch_size()
    frames = size * int(read.lengths.sum()) / len(read)
    return 4 * cell.macs * frames / _MACS_PER_SECOND + len(read.x) * _SECONDS_PER_STEP


def _write(cell: Cell, found: Turned) -> None:
    node, new = cell.node, found.cell
    for index, array in ((W, new.w), (R, new.r), (B, new.b)):
        set_const(node, index, array, suffix="reset_before")
    node.attributes["linear_before_reset"] = ir.AttrInt64("linear_before_reset", 0)
