"""A graph as it is in its file, read for what is quantized in it and how."""

from __future__ import annotations

from collections.abc import Iterator, Set
from dataclasses import dataclass, field

import numpy as np
import onnx_ir as ir
from onnx_ir.passes.common import LiftConstantsToInitializersPass

from edgebm.backends.tensorrt.versions import Version
from edgebm.ir.check import MAX_NODES, check_wiring
from edgebm.ir.edit import Array, const, input_at, inputs
from edgebm.ir.functions import inline_functions
from edgebm.ir.model import Model
from edgebm.ir.opset import model_opset
from edgebm.ir.shapes import infer_shapes, static_shape
from edgebm.ir.traits import ACTIVATIONS, MATMULS, MOVES, is_float

Q, DQ = "QuantizeLinear", "DequantizeLinear"
# The integers behind these are those in front of them.
COPIES = MOVES | {"Cast", "Identity"}
# What is fused into the layer in front of it.
FUSED = ACTIVATIONS | {
    "BatchNormalization", "LeakyRelu", "Sigmoid", "HardSwish", "HardSigmoid", "PRelu", "Elu",
}  # fmt: skip
Fault = tuple[ir.Node | None, str]
"""A node, or None for the whole model, and a sentence with the facts."""


@dataclass(frozen=True, slots=True)
class Reading:
    """A graph, read for one version of TensorRT.

    `opset` is that of the file. `nodes` are in order, those in the bodies of loops and branches
    too; functions are written out and constants lifted, nothing else is changed.
    """

    version: Version
    opset: int
    graph: ir.Graph
    nodes: tuple[ir.Node, ...]
    _by_type: dict[str, list[ir.Node]] = field(default_factory=dict)

    def of(self, *op_types: str) -> Iterator[ir.Node]:
        """Nodes of these types, type by type."""
        for op_type in op_types:
            yield from self._by_type.get(op_type, ())

    def grids(self) -> Iterator[ir.Node]:
        """Every Q, and every DQ that does not repeat the grid of the Q in front of it."""
        for node in self.nodes:
            if node.op_type == Q or (node.op_type == DQ and not _repeats(node)):
                yield node

    @property
    def is_quantized(self) -> bool:
        """Whether there is any Q or DQ."""
        return any(True for _ in self.of(Q, DQ))


def read(model: Model, version: Version) -> Reading:
    """Read `model`, which is left as it is.

    Raises:
        ModelError: its nodes do not hang together.
        UnsupportedModel: it has too many nodes once its functions are written out.
    """
    work = model.clone()
    check_wiring(work)
    opset = model_opset(work)
    inline_functions(work, MAX_NODES)
    LiftConstantsToInitializersPass(lift_all_constants=True, size_limit=0)(work.graph)
    infer_shapes(work)
    nodes = tuple(work.graph.graph.all_nodes())
    found: dict[str, list[ir.Node]] = {}
    for node in nodes:
        found.setdefault(node.op_type, []).append(node)
    return Reading(version, opset, work.graph.graph, nodes, found)


def label(node: ir.Node) -> str:
    """The node's name, or that of its first output where it has none."""
    return node.name or next((value.name for value in node.outputs if value.name), "?")


def scale_of(node: ir.Node) -> Array | None:
    """The scale of a Q or DQ; None where it is computed."""
    return const(input_at(node, 1))


def zero_of(node: ir.Node) -> ir.Value | None:
    """The zero point of a Q or DQ; None where it is left out."""
    return input_at(node, 2)


def stored_type(node: ir.Node) -> ir.DataType | None:
    """The dtype of the integers of a Q or DQ; None where it is not known."""
    if (zero := zero_of(node)) is not None:
        return zero.dtype
    if node.op_type == Q:
        written = node.attributes.get_int("output_dtype", 0)
        return ir.DataType(written) if written else ir.DataType.UINT8
    value = node.inputs[0]
    producer = None if value is None else value.producer()
    return stored_type(producer) if producer and producer.op_type == Q else _dtype(value)


def _dtype(value: ir.Value | None) -> ir.DataType | None:
    return None if value is None else value.dtype


def constant_behind(value: ir.Value | None) -> ir.Value | None:
    """The constant that `value` is a rounded, cast or moved form of; None if it is computed."""
    while value is not None and value.const_value is None:
        node = value.producer()
        if node is None or node.op_type not in COPIES | {Q, DQ}:
            return None
        value = input_at(node, 0)
    return value


def dequantizer(value: ir.Value | None) -> ir.Node | None:
    """The DQ that `value` comes from, through copies; None if it is not quantized."""
    while value is not None and (node := value.producer()) is not None:
        if node.op_type == DQ:
            return node
        if node.op_type not in COPIES:
            return None
        value = input_at(node, 0)
    return None


def source(value: ir.Value) -> ir.Value:
    """The float value in front of the pairs of Q and DQ right before `value`."""
    while (node := value.producer()) is not None and node.op_type in (Q, DQ):
        before = input_at(node, 0)
        if before is None:
            break
        value = before
    return value


def layer_before(value: ir.Value | None) -> ir.Node | None:
    """The product or convolution that `value` comes from, through Q/DQ and what is fused."""
    while value is not None and (node := source(value).producer()) is not None:
        if node.op_type in MATMULS:
            return node
        if node.op_type not in FUSED and not adds_constant(node):
            return None
        first = input_at(node, 0)
        value = input_at(node, 1) if adds_constant(node) and constant_behind(first) else first
    return None


def adds_constant(node: ir.Node) -> bool:
    """Whether this is an Add of a constant, in float or rounded."""
    return node.op_type == "Add" and any(constant_behind(value) for value in node.inputs)


def is_quantized_layer(node: ir.Node | None) -> bool:
    """Whether this is a product or convolution of which one operand is quantized."""
    if node is None or node.op_type not in MATMULS:
        return False
    return any(dequantizer(value) for value in node.inputs[:2])


def readers(value: ir.Value, through: Set[str] = frozenset()) -> Iterator[ir.Node]:
    """Nodes that read `value`, and those behind nodes of the types `through` that read it."""
    left, seen = [value], set()
    while left:
        for node, index in left.pop().uses():
            yield node
            if node.op_type in through and index == 0 and node not in seen:
                seen.add(node)
                left += node.outputs


def goes_into_q(value: ir.Value) -> bool:
    """Whether some reader of `value`, behind copies and what is fused, is a Q."""
    return any(node.op_type == Q for node in readers(value, COPIES | FUSED))


def same_scale(a: ir.Node, b: ir.Node) -> bool:
    """Whether two Q or DQ are known to have one scale."""
    if input_at(a, 1) is input_at(b, 1):
        return True
    mine, theirs = scale_of(a), scale_of(b)
    return mine is not None and theirs is not None and np.array_equal(mine, theirs)


def float_types(node: ir.Node) -> set[ir.DataType]:
    """The floating types among what `node` reads."""
    return {value.dtype for value in inputs(node) if value.dtype and is_float(value)}


def sizes(value: ir.Value | None) -> tuple[int, ...] | None:
    """The shape of a value or of the constant that it is a rounded form of; None if free."""
    while value is not None and (shape := static_shape(value)) is None:
        node = value.producer()
        # Inference does not know these in the domain of ONNX Runtime.
        if node is None or node.op_type not in (Q, DQ):
            return None
        value = input_at(node, 0)
    return None if value is None else shape


def _repeats(node: ir.Node) -> bool:
    value = input_at(node, 0)
    producer = None if value is None else value.producer()
    if producer is None or producer.op_type != Q:
        return False
    mine, theirs = zero_of(node), zero_of(producer)
    return same_scale(node, producer) and (
        mine is theirs or _equal(const(mine), const(theirs)) or mine is None
    )


def _equal(a: Array | None, b: Array | None) -> bool:
    return a is not None and b is not None and np.array_equal(a, b)
