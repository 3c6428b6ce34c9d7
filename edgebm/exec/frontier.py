"""Values between the stages of a graph, exact and rounded, moved on stage by stage."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import onnx_ir as ir
from numpy.typing import NDArray

from edgebm.exec.collect import Feeds, FloatRunner
from edgebm.ir.model import Model
from edgebm.ir.stages import Stage

Row = dict[str, NDArray[Any]]


class Frontier:
    """What the stages behind a place read, for each of some samples.

    `exact` are values of a float graph, `rounded` those of a Q/DQ graph of the same names; both
    have one row for each sample. A value is held from the stage that makes it to the last one
    that reads it.
    """

    def __init__(self, stages: Sequence[Stage], samples: Iterable[Feeds]) -> None:
        self.exact: list[Row] = [dict(feeds) for feeds in samples]
        self.rounded: list[Row] = [dict(row) for row in self.exact]
        self._last = {label: i for i, stage in enumerate(stages) for label in stage.reads}
        self._done = 0

    def move(self, exact: Sequence[Row], rounded: Sequence[Row]) -> None:
        """Take in what the next stage makes, and let go what no stage behind it reads."""
        now = self._done
        self._done += 1
        for held, made in ((self.exact, exact), (self.rounded, rounded)):
            for row, fresh in zip(held, made, strict=True):
                row.update(fresh)
                for label in [k for k in row if self._last.get(k, -1) <= now]:
                    del row[label]


def run_stage(model: Model, stage: Stage, rows: Sequence[Row], *, plain: bool) -> list[Row]:
    """What `stage` of `model` makes of each row.

    Args:
        model: a graph that has the values of the stage by name; not changed.
        stage: where to start and to end.
        rows: what it reads, and maybe more.
        plain: compute the graph as it is written, see `FloatRunner`.
    """
    if not rows or not stage.writes:
        return [{} for _ in rows]
    runner = FloatRunner(cut_out(model, stage, rows[0]), stage.writes, plain=plain)
    return [runner.run({label: row[label] for label in stage.reads}) for row in rows]


def most_bytes(model: Model, stages: Sequence[Stage], feeds: Feeds) -> int:
    """What the values of one sample take where most of them are held at once."""
    frontier, most = Frontier(stages, [feeds]), 1
    for stage in stages:
        made = run_stage(model, stage, frontier.exact, plain=False)
        held = {**frontier.exact[0], **made[0]}
        most = max(most, sum(array.nbytes for array in held.values()))
        frontier.move(made, made)
    return most


def cut_out(model: Model, stage: Stage, row: Mapping[str, NDArray[Any]]) -> Model:
    """The stage as a model of its own, whose inputs have the dtypes that `row` has."""
    graph = ir.convenience.extract(model.graph.graph, stage.reads, stage.writes)
    for value in graph.inputs:
        value.dtype = ir.DataType.from_numpy(row[value.name or ""].dtype)
        value.shape = None
    return Model(ir.Model(graph, ir_version=model.graph.ir_version), model.source)
