"""Decide how recurrent cells compute in integers, from the values they see over sequences."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Annotated, Any, ClassVar, Literal

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray
from pydantic import Field

from edgebm.errors import DataError
from edgebm.exec.collect import FloatRunner
from edgebm.ir.annotate import set_cell_params
from edgebm.ir.edit import const, input_at, name
from edgebm.ir.model import Model
from edgebm.ir.recurrent import Cell, X, cell_of, why_no_integers
from edgebm.ir.traits import RECURRENT
from edgebm.passes.base import Context, step
from edgebm.quant.params import F32
from edgebm.quant.recurrent import CellParams, cell_params, gate_error

# Shares of the largest values seen that the grids of the input and of the hidden state may
# reach: what lies beyond is clipped, and the rest gets finer steps.
_REACHES = (1.0, 0.9, 0.8, 0.7, 0.6, 0.5)
_PEAKS = (1.0, 0.85, 0.7)


@step
class QuantizeRecurrent:
    """Leave `CellParams` on every LSTM and GRU that can compute in 8-bit integers.

    An integer cell has one grid for its input and its hidden state, and one scale per row for
    both of its weights (`quant/recurrent.py`). How far the grids reach is searched: the pair of
    reaches with the least error of the gates, on `rows` steps of the calibration sequences,
    with the hidden states of the float model.
    """

    kind: Literal["quantize_recurrent"] = "quantize_recurrent"
    needs_samples: ClassVar[bool] = True
    rows: Annotated[int, Field(ge=16)] = 768

    def __call__(self, model: Model, ctx: Context, /) -> Model:
        cells = []
        for node in model.nodes(*RECURRENT):
            cell = cell_of(node)
            reason = _why_not(node, cell, ctx)
            if cell is None or reason:
                ctx.skip(self, node.name, reason)
            else:
                cells.append(cell)
        if cells:
            seen = self._watch(model, cells, ctx)
            for done, (cell, steps) in enumerate(zip(cells, seen, strict=True)):
                ctx.progress(f"{self.kind}: reach", done, len(cells))
                set_cell_params(cell.node, _searched(cell, steps))
            ctx.progress(f"{self.kind}: reach", len(cells), len(cells))
        return model

    def _watch(self, model: Model, cells: list[Cell], ctx: Context) -> list[_Steps]:
        """What each cell reads and what it hands on, over the calibration samples."""
        samples = ctx.given("static quantization of a recurrent layer")
        watched = model.clone()
        nodes = {node.name: node for node in watched.nodes(*RECURRENT)}
        each = max(1, -(-self.rows // len(samples)))
        seen = []
        for index, cell in enumerate(cells):
            node = nodes[cell.node.name]
            x = input_at(node, X)
            assert x is not None
            if not node.outputs[0].name:  # the model asks for the last state only
                node.outputs[0].name = f"edgebm.states.{index}"
            seen.append(_Steps(cell, each, name(x), name(node.outputs[0])))
        fetched = sorted({label for steps in seen for label in steps.fetched})
        runner, advance = FloatRunner(watched, fetched), ctx.counter(self.kind, len(samples))
        for index, feeds in enumerate(samples.feeds()):
            values = runner.run(feeds)
            for steps in seen:
                steps.add(values, f"calibration sample {index}")
            advance()
        return seen


@dataclass
class _Steps:
    """Ranges of a cell's values, and some steps of each sample: inputs and the states before."""

    cell: Cell
    each: int
    x: str
    y: str
    low: Any = np.inf
    high: Any = -np.inf
    peak: float = 0.0
    xs: list[NDArray[Any]] = field(default_factory=list)
    hs: list[NDArray[Any]] = field(default_factory=list)

    @property
    def fetched(self) -> list[str]:
        return [self.x, self.y, *([self._initial] if self._initial else [])]

    @property
    def _initial(self) -> str:
        """The value of the first state; empty where that is constant."""
        value = self.cell.initial_h
        return "" if value is None or const(value) is not None else name(value)

    def add(self, values: Mapping[str, NDArray[Any]], where: str) -> None:
        """Take in one sample: x [T, N, I] and y [T, 1, N, H]."""
        x, y = values[self.x], values[self.y][:, 0]
        if not (np.isfinite(x).all() and np.isfinite(y).all()):
            raise DataError(f"{where}: NaN or infinity in or behind '{self.x}'")
        first = values[self._initial] if self._initial else const(self.cell.initial_h)
        first = np.broadcast_to(np.float32(0) if first is None else first, (1, *y.shape[1:]))
        if self.cell.direction == "reverse":
            x, y = x[::-1], y[::-1]
        before = np.concatenate([first, y[:-1]])
        self.low, self.high = (
            np.minimum(self.low, x.min((0, 1))),
            np.maximum(self.high, x.max((0, 1))),
        )
        self.peak = max(self.peak, float(np.abs(before).max()), float(np.abs(y).max()))
        # Steps at even distances, others in each sample.
        stride = max(1, len(x) // self.each)
        start = len(self.xs) % stride
        self.xs.append(x[start::stride, 0][: self.each].copy())
        self.hs.append(before[start::stride, 0][: self.each].copy())

    @property
    def rows(self) -> tuple[F32, F32]:
        return np.concatenate(self.xs), np.concatenate(self.hs)


def _searched(cell: Cell, steps: _Steps) -> CellParams:
    """The reaches of both grids with the least error of the gates."""
    w, r, bias = cell.w[0], cell.r[0], cell.bias[0]
    middle, width = (steps.high + steps.low) / 2, (steps.high - steps.low) / 2
    top = min(1.0, steps.peak) or 1.0
    best: tuple[float, CellParams] | None = None
    for share in _PEAKS:
        for reach in _REACHES:
            low, high = middle - reach * width, middle + reach * width
            found = cell_params(cell.op, w, r, low, high, top * share)
            error = gate_error(cell.op, (w, r, bias), steps.rows, found)
            if best is None or error < best[0]:
                best = error, found
    assert best is not None
    return best[1]


def _why_not(node: ir.Node, cell: Cell | None, ctx: Context) -> str:
    """Why the node stays in float; an empty string if it can be decided."""
    if ctx.is_ignored(node.name or "", node.op_type):
        return "it is on the ignored list"
    return why_no_integers(cell)
