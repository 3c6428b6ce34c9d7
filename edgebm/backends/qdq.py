"""Turn annotations into ONNX nodes. The only place that writes Q/DQ."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray

from edgebm.backends.dialects import Dialect
from edgebm.backends.placement import Ignored, Placement, place
from edgebm.ir.annotate import (
    cell_params_of,
    clear_cell_params,
    quant_of,
    range_of,
    rounded_of,
    set_cell_params,
    shift_of,
)
from edgebm.ir.bias import subtract_from_bias
from edgebm.ir.edit import add_const, const, name, remove_dead
from edgebm.ir.model import Model
from edgebm.ir.traits import RECURRENT, activation_inputs, weight_index
from edgebm.quant.params import (
    QuantParams,
    quantize,
    range_params,
    with_bits,
    with_half_scales,
)

_INT32_MAX = 2**31 - 1


def lower(model: Model, dialect: Dialect, ignored: Ignored) -> tuple[Model, Placement]:
    """Write the decisions on `model` as Q/DQ nodes in a copy, placed for `dialect`.

    Returns:
        The lowered copy, and the placement it follows.
    """
    out = model.clone()
    plan = place(out, dialect, ignored, decided=True)
    writer = _Writer(out.graph.graph, dialect, plan)
    for node in list(out.nodes("Gather")) if dialect.tables else ():
        if not ignored(node.name or "", node.op_type):
            writer.table(node)
    for node in plan.nodes:
        if weight_index(node) == 1:
            if (shift := shift_of(node.outputs[0])) is not None:
                subtract_from_bias(node, shift)
            writer.weights(node)
    for label in plan.points:
        writer.activation(label)
    _settle_cells(out, dialect, plan)
    out.graph.graph.sort()
    remove_dead(out.graph.graph)
    return out, plan


def _settle_cells(out: Model, dialect: Dialect, plan: Placement) -> None:
    """Leave on recurrent nodes what their kernel shall do: it is told when the files are made."""
    for node in out.nodes(*RECURRENT):
        params = cell_params_of(node)
        if params is not None and node in plan.cells:
            set_cell_params(node, params.with_weight_bits(dialect.grid.cell_bits))
        else:
            clear_cell_params(node)


class _Writer:
    def __init__(self, graph: ir.Graph, dialect: Dialect, plan: Placement) -> None:
        self.graph, self.dialect, self.plan = graph, dialect, plan
        self.values = {name(v): v for v in graph.inputs}
        self.values |= {name(v): v for node in graph for v in node.outputs}
        self.integer = set(plan.nodes)
        self.params = {label: self._params(source) for label, source in plan.points.items()}

    def _params(self, source: ir.Value) -> QuantParams:
        span = range_of(source)
        assert span is not None  # the plan leaves out what was not decided
        params = range_params(
            span, bits=self.dialect.grid.activation_bits, signed=self.dialect.signed_activations
        )
        return with_half_scales(params) if self.dialect.half_scales else params

    def activation(self, label: str) -> None:
        """Put Q and DQ behind the value and lead its integer consumers through them."""
        value, params = self.values[label], self.params[label]
        readers = [use for use in value.uses() if self._reads(*use, label)]
        scale, zero = self._grid(label, params)
        q = self._node("QuantizeLinear", [value, scale, zero], f"{label}.q", value)
        q.type = ir.TensorType(ir.DataType.INT8 if params.signed else ir.DataType.UINT8)
        dq = self._node("DequantizeLinear", [q, scale, zero], f"{label}.dq", value)
        for node, index in readers:
            node.replace_input_with(index, dq)

    def _reads(self, node: ir.Node, index: int, label: str) -> bool:
        """Whether input `index` of `node` is the quantized form of the point `label`."""
        if label in self.plan.whole or self.plan.skips.get(node) == index:
            return True
        return node in self.integer or node in self.plan.carriers

    def weights(self, node: ir.Node) -> None:
        """Store the weight as int8 behind a DQ, and the bias as int32 where that is asked."""
        value = node.inputs[1]
        decided, array = quant_of(value), const(value)
        assert value is not None
        assert decided is not None
        assert array is not None
        params = with_bits(decided, min(decided.bits, self.dialect.grid.weight_bits))
        # What was learned for a scale is as good beside one that is 0.05 % off.
        learned = rounded_of(value, params)
        params = with_half_scales(params) if self.dialect.half_scales else params
        scale, zero = self._grid(name(value), params)
        integers = _as_int8(array, params) if learned is None else learned
        stored = add_const(self.graph, self._free(f"{name(value)}.q"), integers)
        dq = self._node(
            "DequantizeLinear", [stored, scale, zero], f"{name(value)}.dq", value, params.axis
        )
        node.replace_input_with(1, dq)
        if self.dialect.int32_bias and len(node.inputs) > 2 and node.inputs[2] is not None:
            self._bias(node, params)

    def _bias(self, node: ir.Node, weight: QuantParams) -> None:
        """A bias on the grid of the accumulator: scale = input scale x weight scale."""
        value = node.inputs[2]
        bias = const(value)
        if bias is None or value is None:
            return
        operand = node.inputs[activation_inputs(node)[0]]
        assert operand is not None  # and a point: such a dialect quantizes behind carriers too
        scale = np.asarray(self.params[name(operand)].scale * weight.scale, np.float32)
        integers = np.rint(bias.astype(np.float64) / scale)
        if np.abs(integers).max(initial=0) > _INT32_MAX or bias.ndim != 1:
            return
        label = self._free(f"{name(value)}.q")
        stored = add_const(self.graph, label, integers.astype(np.int32))
        step = add_const(self.graph, self._free(f"{label}.scale"), scale)
        axis = 0 if scale.ndim else None
        node.replace_input_with(
            2, self._node("DequantizeLinear", [stored, step], f"{name(value)}.dq", value, axis)
        )

    def table(self, node: ir.Node) -> None:
        """An embedding: pick int8 rows and their scales, then multiply."""
        value = node.inputs[0]
        params, array = quant_of(value), const(value)
        if params is None or array is None or weight_index(node) != 0 or params.axis != 0:
            return
        out, ids, label = node.outputs[0], node.inputs[1], name(value)  # type: ignore[arg-type]
        rows = add_const(self.graph, self._free(f"{label}.q"), _as_int8(array, params))
        steps = add_const(self.graph, self._free(f"{label}.scale"), params.scale.reshape(-1, 1))
        picked = self._node("Gather", [rows, ids], f"{name(out)}.rows", out)
        picked.type = ir.TensorType(ir.DataType.INT8)
        cast = self._node("Cast", [picked], f"{name(out)}.float", out)
        producer = cast.producer()
        assert producer is not None
        producer.attributes["to"] = ir.AttrInt64("to", int(ir.DataType.FLOAT))
        scale = self._node("Gather", [steps, ids], f"{name(out)}.step", out)
        scale.shape = None
        product = self._node("Mul", [cast, scale], f"{name(out)}.scaled", out)
        kept = name(out)
        ir.convenience.replace_all_uses_with(out, product, replace_graph_outputs=True)
        out.name, product.name = f"{kept}.unused", kept
        self.graph.remove(node, safe=True)
        self.values[kept] = product
        product.meta.update(out.meta)

    def _node(
        self, op: str, inputs: list[Any], label: str, like: ir.Value, axis: int | None = None
    ) -> ir.Value:
        """Append a node (the graph is sorted at the end) and name its output."""
        attributes = {} if axis is None else {"axis": axis}
        node = ir.node(op, inputs, attributes=attributes, name=self._free(label))
        self.graph.append(node)
        node.outputs[0].name = node.name
        node.outputs[0].type, node.outputs[0].shape = like.type, like.shape
        return node.outputs[0]

    def _grid(self, label: str, params: QuantParams) -> tuple[ir.Value, ir.Value]:
        zero = params.zero_point.astype(np.int8 if params.signed else np.uint8)
        return (
            add_const(self.graph, self._free(f"{label}.scale"), params.scale),
            add_const(self.graph, self._free(f"{label}.zero_point"), zero),
        )

    def _free(self, label: str) -> str:
        """`label`, or the first of `label.1`, `label.2` ... that names nothing yet."""
        taken = self.graph.initializers
        choice, count = label, 0
        while choice in taken or choice in self.values:
            count += 1
            choice = f"{label}.{count}"
        self.values.setdefault(choice, ir.val(choice))
        return choice


def _as_int8(array: NDArray[Any], params: QuantParams) -> NDArray[np.int8]:
    return quantize(array, params).astype(np.int8)
