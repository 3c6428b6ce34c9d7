"""A Q/DQ graph with its roundings as taps, and the float weights behind them as its own."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace

import numpy as np
import onnx_ir as ir

from edgebm.ir.annotate import quant_of, range_source
from edgebm.ir.edit import (
    add_const,
    add_node,
    const,
    dequantized,
    name,
    remove_dead,
    take_over,
)
from edgebm.ir.model import Model
from edgebm.ir.recurrent import R, W, cell_of
from edgebm.ir.traits import MATMULS
from edgebm.quant.params import F32, QuantParams, spread, with_bits
from edgebm.quant.recurrent import CellParams


@dataclass(frozen=True, slots=True)
class RoundedWeight:
    """A float weight `master`, and the value `label` that products read in its place.

    `step` broadcasts against the weight. `params` is the grid of a matrix or kernel as lowered;
    None for the weights of a recurrent cell, whose rows share theirs. `readers` are nodes.
    """

    label: str
    master: str
    step: F32
    high: int
    params: QuantParams | None
    readers: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class RoundedPoint:
    """A value that is rounded: its readers read `label`.

    `source` has the Range that the grid was made from; None where that is not a Range.
    `low` and `high` are integers, `zero` is the one that stands for 0.0.
    """

    label: str
    source: str | None
    step: F32
    zero: int
    low: int
    high: int


@dataclass(slots=True)
class Simulated:
    """The graph without Q and DQ: an Identity stands where rounding is to be tapped."""

    model: Model
    weights: list[RoundedWeight] = field(default_factory=list)
    points: list[RoundedPoint] = field(default_factory=list)


def simulated(
    lowered: Model, floats: Model, cells: Mapping[str, CellParams] | None = None
) -> Simulated:
    """The roundings of `lowered`, with the float weights of `floats` behind them.

    Args:
        lowered: a Q/DQ graph; of recurrent cells, a simulation in float. Not changed.
        floats: the annotated graph it was made from; nodes are matched by name.
        cells: how the recurrent nodes with these names are rounded.
    """
    out = Simulated(lowered.clone())
    nodes = {node.name: node for node in floats.nodes()}
    rewriter = _Rewriter(out, nodes)
    for node in list(out.model.nodes("DequantizeLinear")):
        rewriter.open(node)
    for label, params in (cells or {}).items():
        rewriter.open_cell(label, params)
    out.weights = list(rewriter.known.values())
    remove_dead(out.model.graph.graph)
    return out


@dataclass(frozen=True, slots=True)
class _Grid:
    step: F32
    high: int
    params: QuantParams | None


class _Rewriter:
    def __init__(self, out: Simulated, floats: Mapping[str | None, ir.Node]) -> None:
        self.out, self.floats = out, floats
        self.graph = out.model.graph.graph
        self.known: dict[tuple[str, bytes], RoundedWeight] = {}

    def open(self, node: ir.Node) -> None:
        """Replace one DequantizeLinear."""
        source = node.inputs[0]
        before = None if source is None else source.producer()
        if before is not None and before.op_type == "QuantizeLinear":
            self._open_point(node, before)
            return
        array = dequantized(node.outputs[0])
        uses = tuple(node.outputs[0].uses())
        if array is None or len(uses) != 1:
            return
        reader, index = uses[0]
        if index == 1 and reader.op_type in MATMULS:
            self._open_weight(node, reader)
        elif index == 2:
            fresh = add_const(self.graph, f"{node.outputs[0].name}.float", array)
            reader.replace_input_with(index, fresh)

    def _open_point(self, node: ir.Node, quantize: ir.Node) -> None:
        value = quantize.inputs[0]
        scale, zero = const(node.inputs[1]), const(node.inputs[2])
        if value is None or scale is None or zero is None or scale.size != 1:
            return
        bounds = np.iinfo(zero.dtype)
        source = range_source(value)
        label = self._stand_in(node, value)
        self.out.points.append(
            RoundedPoint(
                label,
                None if source is None else name(source),
                np.asarray(scale, np.float32).reshape(()),
                int(zero),
                bounds.min,
                bounds.max,
            )
        )

    def _stand_in(self, node: ir.Node, value: ir.Value) -> str:
        """An Identity of `value` in place of `node`, under its name."""
        fresh = add_node(node, "Identity", [value])
        take_over(node.outputs[0], fresh)
        return name(fresh)

    def _open_weight(self, node: ir.Node, reader: ir.Node) -> None:
        original = self.floats.get(reader.name)
        value = None if original is None else original.inputs[1]
        array, decided = const(value), quant_of(value)
        scale = const(node.inputs[1])
        if value is None or array is None or decided is None or scale is None:
            return
        params = _as_lowered(decided, scale)
        step = spread(params.scale, array, params)
        self._share(node, name(value), array, _Grid(step, params.qmax, params), reader)

    def _share(self, node: ir.Node, label: str, array: F32, grid: _Grid, reader: ir.Node) -> None:
        """Let the reader of `node` read the float weight `label`, tapped once for all readers."""
        key = (label, grid.step.tobytes())
        held = self.known.get(key)
        if held is None:
            master = self.graph.initializers.get(label)
            if master is None:
                master = add_const(self.graph, label, array)
            tapped = self._stand_in(node, master)
            held = RoundedWeight(tapped, name(master), grid.step, grid.high, grid.params, ())
        else:
            tapped = held.label
            shared = next(v for n in self.graph for v in n.outputs if v.name == tapped)
            reader.replace_input_with(1, shared)
        self.known[key] = replace(held, readers=(*held.readers, reader.name or "?"))

    def open_cell(self, label: str, params: CellParams) -> None:
        """The weights W and R of one recurrent node; its input is rounded by nodes already."""
        node = next(n for n in self.graph if n.name == label)
        cell = cell_of(self.floats[label])
        assert cell is not None
        rows = params.weights.scale[:, None]
        for index, array, step in ((W, cell.w, rows / params.stretch), (R, cell.r, rows)):
            master = add_const(self.graph, f"{label}.{index}.float", array)
            tapped = add_node(node, "Identity", [master], label=f"{label}.{index}.rounded")
            node.replace_input_with(index, tapped)
            grid = _Grid(np.asarray(step[None], np.float32), params.weights.qmax, None)
            self.known[name(master), b""] = RoundedWeight(
                name(tapped), name(master), grid.step, grid.high, None, (label,)
            )


def _as_lowered(decided: QuantParams, scale: F32) -> QuantParams:
    """`decided` with the bits that lowering took, told by its scale."""
    for bits in range(decided.bits, 1, -1):
        params = with_bits(decided, bits)
        if np.array_equal(params.scale, scale):
            return params
    raise AssertionError("no number of bits gives the scale that was lowered")
