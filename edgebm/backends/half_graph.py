"""A float graph rewritten to FP16, with FP32 where it is needed and at its inputs and outputs."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import onnx_ir as ir

from edgebm.errors import BackendFailed
from edgebm.ir.edit import add_const, const, name, remove_dead
from edgebm.ir.model import Model

F16, F32 = ir.DataType.FLOAT16, ir.DataType.FLOAT
# Inputs that are of FP32 whatever the node computes in.
_OWN_TYPE = frozenset({("Resize", 1), ("Resize", 2), ("Upsample", 1)})
# Attributes that say the type of an output.
_TYPED = {"Cast": "to", "RandomNormal": "dtype", "EyeLike": "dtype"}


def to_half(model: Model, keep: Mapping[str, str]) -> Model:
    """A copy of `model` in which floats are FP16, but for the nodes named in `keep`.

    Inputs and outputs of the model stay as they are: a Cast stands behind an FP32 input and in
    front of an FP32 output.

    Args:
        model: a float graph, or one with Q/DQ whose scales FP16 has.
        keep: what `half.needs_f32` found.

    Raises:
        BackendFailed: a node has a graph of its own (`If`, `Loop`, `Scan`).
    """
    out = model.clone()
    _Rewriter(out.graph.graph, keep).run()
    return out


class _Rewriter:
    def __init__(self, graph: ir.Graph, keep: Mapping[str, str]) -> None:
        self.graph, self.keep = graph, keep
        self.casts: dict[tuple[str, ir.DataType], ir.Value] = {}
        self.halves: dict[str, ir.Value] = {}
        self.taken = {v.name for node in graph for v in node.outputs}
        self.taken |= {v.name for v in graph.inputs} | set(graph.initializers)

    def run(self) -> None:
        for node in list(self.graph):
            self._rewrite(node)
        for index, value in enumerate(list(self.graph.outputs)):
            if value.dtype == F16:
                self._widen(index, value)
        self.graph.sort()
        remove_dead(self.graph)

    def _rewrite(self, node: ir.Node) -> None:
        if any(isinstance(a, ir.Attr) and a.type in _GRAPHS for a in node.attributes.values()):
            raise BackendFailed(
                f"{node.op_type} '{node.name}' has a graph of its own, which is not rewritten to "
                "f16",
                hint="f32 works: -r fp32",
            )
        dtype = F32 if node.name in self.keep else F16
        for index, value in enumerate(node.inputs):
            if value is None or value.dtype not in (F16, F32):
                continue
            wanted = F32 if (node.op_type, index) in _OWN_TYPE else dtype
            if value.dtype != wanted:
                node.replace_input_with(index, self._as(value, wanted))
        if dtype == F16:
            self._narrow(node)

    def _narrow(self, node: ir.Node) -> None:
        """Let the outputs of `node` be FP16."""
        # The mean and deviation that a LayerNormalization gives out are FP32 in any case.
        count = 1 if node.op_type == "LayerNormalization" else len(node.outputs)
        for out in node.outputs[:count]:
            if out.dtype == F32:
                out.type = ir.TensorType(F16)
        key = _TYPED.get(node.op_type, "")
        if key and node.attributes.get_int(key, 0) == int(F32):
            node.attributes[key] = ir.AttrInt64(key, int(F16))
        filled = node.attributes.get("value")
        if node.op_type == "ConstantOfShape":
            array = np.zeros(1, np.float32) if filled is None else filled.as_tensor().numpy()
            if array.dtype == np.float32:
                tensor = ir.tensor(array.astype(np.float16))
                node.attributes["value"] = ir.AttrTensor("value", tensor)

    def _as(self, value: ir.Value, dtype: ir.DataType) -> ir.Value:
        """`value` in the other type: a constant of its own, or the output of one Cast for all."""
        label = name(value)
        array = const(value)
        if array is not None:
            # FP32 constants are those of the source, so only FP16 ones are made.
            if label not in self.halves:
                rounded = np.asarray(array, np.float16)
                self.halves[label] = add_const(self.graph, self._free(f"{label}.f16"), rounded)
            return self.halves[label]
        if (label, dtype) not in self.casts:
            suffix = "f16" if dtype == F16 else "f32"
            self.casts[label, dtype] = self._cast(value, dtype, self._free(f"{label}.{suffix}"))
        return self.casts[label, dtype]

    def _cast(self, value: ir.Value, dtype: ir.DataType, label: str) -> ir.Value:
        """The output `label` of a new Cast of `value`; the graph is sorted later."""
        node = ir.node("Cast", [value], {"to": int(dtype)}, name=f"{label}.cast")
        self.graph.append(node)
        out = node.outputs[0]
        out.name, out.type, out.shape = label, ir.TensorType(dtype), value.shape
        return out

    def _widen(self, index: int, value: ir.Value) -> None:
        """Give the model's output `index` back its type, under its name."""
        label = name(value)
        value.name = self._free(f"{label}.f16")
        out = self._cast(value, F32, label)
        self.graph.outputs[index] = out

    def _free(self, label: str) -> str:
        choice, count = label, 0
        while choice in self.taken:
            count += 1
            choice = f"{label}.{count}"
        self.taken.add(choice)
        return choice


_GRAPHS = (ir.AttributeType.GRAPH, ir.AttributeType.GRAPHS)
