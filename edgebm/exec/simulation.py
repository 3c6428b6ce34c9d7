"""A Q/DQ graph in float, with every rounding in it a switch that can be turned between calls.

What a layer costs is found by turning its rounding off, or all others: thousands of settings
of one graph. Lowering and opening a graph for each would take minutes; one session whose
switches, ranges and weights are inputs takes one call.
"""

from __future__ import annotations

from collections.abc import Mapping
from collections.abc import Set as AbstractSet
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray

from edgebm.errors import ModelError
from edgebm.exec.collect import Feeds, FloatRunner
from edgebm.ir.annotate import shift_of
from edgebm.ir.bias import bias_place
from edgebm.ir.edit import const, dequantized, input_at, main_graph, name
from edgebm.ir.model import Model
from edgebm.quant.params import QuantParams

Edge = tuple[str, str]  # a quantized value, and the node that reads it


@dataclass(frozen=True, slots=True)
class Setting:
    """What differs from the lowered graph in one call.

    Attributes:
        off: edges whose reader gets the value without rounding.
        weights: by node name, what takes the place of the dequantized weight (same shape). The
            bias of such a node is that of the float graph, without any correction.
        params: by value name, another per-tensor grid (unsigned or signed as it was).
    """

    off: AbstractSet[Edge] = frozenset()
    weights: Mapping[str, NDArray[Any]] = field(default_factory=dict)
    params: Mapping[str, QuantParams] = field(default_factory=dict)


AS_LOWERED = Setting()


class Simulation:
    """`lowered` on ONNX Runtime without fusion: the arithmetic that exact integer kernels do.

    `edges` are the quantized values with their readers, `grids` their (scale, zero point) as
    lowered, by the value's name; `weights` the dequantized weights by the name of their node
    (`float_weights` the same before rounding).
    """

    def __init__(self, lowered: Model, original: Model, fetch: list[str]) -> None:
        """`original` is the float graph of the same node names; `fetch` the values `run` returns.

        Raises:
            BackendFailed: ONNX Runtime does not load the graph.
        """
        probe = lowered.clone()
        self._defaults: dict[str, NDArray[Any]] = {}
        self._switches: dict[Edge, str] = {}
        self._grids: dict[str, tuple[str, str]] = {}
        self._weight_inputs: dict[str, str] = {}
        self._float_biases: dict[str, tuple[str, NDArray[Any]]] = {}
        for quantize in list(probe.nodes("QuantizeLinear")):
            self._open_point(probe, quantize)
        floats = {node.name: node for node in original.nodes()}
        for node in list(probe.nodes()):
            self._open_weight(probe, node)
            if node.name in self._weight_inputs and node.name in floats:
                self._open_bias(probe, node, floats[node.name])
        probe.graph.graph.sort()
        self.edges: frozenset[Edge] = frozenset(self._switches)
        self.grids = {
            label: (self._defaults[scale], self._defaults[zero])
            for label, (scale, zero) in self._grids.items()
        }
        self.weights = {n: self._defaults[label] for n, label in self._weight_inputs.items()}
        self.float_weights = {
            node.name: weight
            for node in original.nodes()
            if node.name in self.weights and (weight := const(node.inputs[1])) is not None
        }
        self._runner = FloatRunner(probe, fetch, plain=True)

    def run(self, feeds: Feeds, setting: Setting = AS_LOWERED) -> dict[str, NDArray[Any]]:
        """The fetched values for one sample, by name.

        Raises:
            ModelError: `setting` names an edge, a weight or a value that is not there.
        """
        changed: dict[str, NDArray[Any]] = {}
        try:
            for edge in setting.off:
                changed[self._switches[edge]] = np.zeros((), np.bool_)
            for node, weight in setting.weights.items():
                changed[self._weight_inputs[node]] = weight
                if node in self._float_biases:
                    bias, exact = self._float_biases[node]
                    changed[bias] = exact
            for label, params in setting.params.items():
                scale, zero = self._grids[label]
                changed[scale] = params.scale
                changed[zero] = params.zero_point.astype(self._defaults[zero].dtype)
        except KeyError as cause:
            raise ModelError(f"{cause} is not quantized in this graph") from cause
        return self._runner.run({**self._defaults, **changed, **feeds})

    def _open_point(self, model: Model, quantize: ir.Node) -> None:
        """Make the grid of one Q/DQ pair, and a switch for each of its readers, inputs."""
        value = quantize.inputs[0]
        assert value is not None
        label = name(value)
        scale = self._lift(model, quantize.inputs[1], f"{label}@scale")
        zero = self._lift(model, quantize.inputs[2], f"{label}@zero")
        self._grids[label] = (name(scale), name(zero))
        for index, lifted in ((1, scale), (2, zero)):
            quantize.replace_input_with(index, lifted)
        for use in tuple(quantize.outputs[0].uses()):
            dequantize = use.node
            for index, lifted in ((1, scale), (2, zero)):
                dequantize.replace_input_with(index, lifted)
            for reader, at in tuple(dequantize.outputs[0].uses()):
                reader.replace_input_with(at, self._switch(model, value, dequantize, reader))

    def _switch(
        self, model: Model, value: ir.Value, dequantize: ir.Node, reader: ir.Node
    ) -> ir.Value:
        edge = (name(value), reader.name or "?")
        label = self._switches.setdefault(edge, f"{edge[0]}@{edge[1]}@on")
        known = next((v for v in model.graph.graph.inputs if v.name == label), None)
        on = known or self._input(model, label, np.ones((), np.bool_))
        rounded = dequantize.outputs[0]
        choice = ir.node("Where", [on, rounded, value])
        choice.outputs[0].type, choice.outputs[0].shape = value.type, value.shape
        main_graph(dequantize).append(choice)
        return choice.outputs[0]

    def _open_weight(self, model: Model, node: ir.Node) -> None:
        """Make a weight that is stored as integers a float input."""
        weight = dequantized(input_at(node, 1))
        if weight is None:
            return
        label = f"{node.name}@weight"
        self._weight_inputs[node.name or "?"] = label
        node.replace_input_with(1, self._input(model, label, weight))

    def _open_bias(self, model: Model, node: ir.Node, original: ir.Node) -> None:
        """Make a bias that was corrected an input."""
        before = bias_place(original)
        if before is None or shift_of(original.outputs[0]) is None:
            return
        # One that became an integer is no constant any more, and stands where it stood.
        place = bias_place(node) or (node, 2)
        value, exact = input_at(*place), const(input_at(*before))
        stored = dequantized(value)
        corrected = const(value) if stored is None else stored
        if corrected is None:
            return
        exact = (
            np.zeros_like(corrected) if exact is None else np.broadcast_to(exact, corrected.shape)
        )
        label = f"{node.name}@bias"
        owner, index = place
        owner.replace_input_with(index, self._input(model, label, corrected))
        self._float_biases[node.name or "?"] = (label, np.ascontiguousarray(exact))

    def _lift(self, model: Model, value: ir.Value | None, label: str) -> ir.Value:
        array = const(value)
        assert array is not None  # lowering wrote it as a constant
        return self._input(model, label, array)

    def _input(self, model: Model, label: str, array: NDArray[Any]) -> ir.Value:
        """A new graph input with a default that `run` feeds."""
        kind = ir.DataType.from_numpy(array.dtype)
        fresh = ir.val(label, dtype=kind, shape=array.shape)
        model.graph.graph.inputs.append(fresh)
        self._defaults[label] = array
        return fresh
