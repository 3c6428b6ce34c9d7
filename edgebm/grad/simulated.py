"""A Q/DQ graph with its roundings as taps, and the float weights behind them as its own."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace

import numpy as np
import onnx_ir as ir

from edgebm.ir.annotate import quant_of, range_source, rounded_of
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
from edgebm.quant.params import F32, QuantParams, dequantize, spread, with_bits
from edgebm.quant.recurrent import CellParams


@dataclass(frozen=True, slots=True)
class RoundedWeight:
    """A float weight that is rounded before anything reads it, by its name.

    `step` broadcasts against the weight. `params` is the grid of a matrix or kernel as lowered;
    None for the weights of a recurrent cell, whose rows share theirs. `readers` are nodes.
    """

    label: str
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
    """The graph without Q and DQ: where values are rounded stands an Identity, to be tapped."""

    model: Model
    weights: list[RoundedWeight] = field(default_factory=list)
    points: list[RoundedPoint] = field(default_factory=list)


def simulated(
    lowered: Model,
    floats: Model,
    cells: Mapping[str, CellParams] | None = None,
    *,
    as_learned: bool = False,
) -> Simulated:
    """The roundings of `lowered`, with the float weights of `floats` behind them.

    Args:
        lowered: a Q/DQ graph; of recurrent cells, a simulation in float. Not changed.
        floats: the annotated graph it was made from; nodes are matched by name.
        cells: how the recurrent nodes with these names are rounded.
        as_learned: weights whose rounding was learned have the values that they are rounded to,
            and not those before.
    """
    out = Simulated(lowered.clone())
    nodes = {node.name: node for node in floats.nodes()}
    rewriter = _Rewriter(out, nodes, as_learned=as_learned)
    for node in list(out.model.nodes("DequantizeLinear")):
        rewriter.open(node)
    for label, params in (cells or {}).items():
        rewriter.open_cell(label, params)
    out.weights = list(rewriter.known.values())
    remove_dead(out.model.graph.graph)
    return out


class _Rewriter:
    def __init__(
        self, out: Simulated, floats: Mapping[str | None, ir.Node], *, as_learned: bool
    ) -> None:
        self.out, self.floats, self._as_learned = out, floats, as_learned
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
        fresh = add_node(node, "Identity", [value])
        take_over(node.outputs[0], fresh)
        self.out.points.append(
            RoundedPoint(
                name(fresh),
                None if source is None else name(source),
                np.asarray(scale, np.float32).reshape(()),
                int(zero),
                bounds.min,
                bounds.max,
            )
        )

    def _open_weight(self, node: ir.Node, reader: ir.Node) -> None:
        original = self.floats.get(reader.name)
        value = None if original is None else original.inputs[1]
        array, decided = const(value), quant_of(value)
        scale = const(node.inputs[1])
        if value is None or array is None or decided is None or scale is None:
            return
        params = _as_lowered(decided, scale)
        integers = rounded_of(value, params) if self._as_learned else None
        array = array if integers is None else dequantize(integers, params)
        step = np.asarray(spread(params.scale, array, params), np.float32)
        key = (name(value), step.tobytes())
        held = self.known.get(key)
        if held is None:  # its name may be taken by what other layers read without rounding
            label = name(add_const(self.graph, name(value), array))
            held = RoundedWeight(label, step, params.qmax, params, ())
        reader.replace_input_with(1, self.graph.initializers[held.label])
        self.known[key] = replace(held, readers=(*held.readers, reader.name or "?"))

    def open_cell(self, label: str, params: CellParams) -> None:
        """The weights W and R of one recurrent node; its input is rounded by nodes already."""
        node = next(n for n in self.graph if n.name == label)
        cell = cell_of(self.floats[label])
        assert cell is not None
        rows = params.weights.scale[:, None]
        for index, array, step in ((W, cell.w, rows / params.stretch), (R, cell.r, rows)):
            master = add_const(self.graph, f"{label}.{index}.float", array)
            node.replace_input_with(index, master)
            self.known[name(master), b""] = RoundedWeight(
                name(master),
                np.asarray(step[None], np.float32),
                params.weights.qmax,
                None,
                (label,),
            )


def _as_lowered(decided: QuantParams, scale: F32) -> QuantParams:
    """`decided` with the bits that lowering took, told by its scale."""
    for bits in range(decided.bits, 1, -1):
        params = with_bits(decided, bits)
        if np.array_equal(params.scale, scale):
            return params
    raise AssertionError("no number of bits gives the scale that was lowered")
