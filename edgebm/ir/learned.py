"""Which constants of a graph are weights that a training step may change."""

from __future__ import annotations

import onnx_ir as ir

from edgebm.ir.edit import Array, const, input_at, name, sole_user
from edgebm.ir.model import Model
from edgebm.ir.traits import is_float_const, is_table

# Where an op has its weights. What else is constant there is a setting: limits, sizes, moments.
_PLACES = {
    "BatchNormalization": (1, 2),
    "Conv": (1, 2),
    "ConvTranspose": (1, 2),
    "Einsum": (0, 1, 2),
    "GRU": (1, 2, 3),
    "Gemm": (0, 1, 2),
    "InstanceNormalization": (1, 2),
    "LSTM": (1, 2, 3, 7),
    "LayerNormalization": (1, 2),
    "MatMul": (0, 1),
    "PRelu": (1,),
    "RNN": (1, 2, 3),
}
_MOMENTS = {"BatchNormalization": (3, 4)}
_BIASED = frozenset({"Conv", "ConvTranspose", "Gemm"})
_VECTOR_OPS = frozenset({"Add", "Mul"})


def learned(model: Model) -> frozenset[str]:
    """Names of the initializers that are weights of layers, by where the graph reads them.

    - kernels, matrices, biases, scales, slopes and peepholes of the ops that have such inputs
    - tables of which a Gather picks rows by ids computed at run time (embeddings)
    - vectors that an Add or Mul applies to what such a layer, or a division by a deviation,
      gives: directly or after another such vector (the bias of a MatMul, the gain of a norm
      that is written out)

    Not among them are the bias of a layer that a BatchNormalization alone reads, which takes it
    away again (its gradient is rounding error), scalars, masks, tables of positions that were
    added up beforehand, constants that inputs meet before the first layer (means and deviations
    of preprocessing), limits, sizes, and never the running moments of a BatchNormalization.
    """
    found: set[str] = set()
    moments: set[str] = set()
    layered: set[ir.Value] = set()
    for node in model.graph.graph:
        weights = _weights(node)
        vector = _vector(node, layered)
        found |= {name(value) for value in weights}
        moments |= {name(v) for v in _at(node, _MOMENTS.get(node.op_type, ()))}
        if vector is not None:
            found.add(name(vector))
        if weights or vector is not None or _is_standardized(node):
            layered.update(node.outputs)
    return frozenset(found - moments)


def _at(node: ir.Node, places: tuple[int, ...]) -> list[ir.Value]:
    values = [input_at(node, index) for index in places]
    return [value for value in values if value is not None and is_float_const(value)]


def _weights(node: ir.Node) -> list[ir.Value]:
    if node.op_type == "Gather":
        return _at(node, (0,)) if is_table(node) else []
    places = _PLACES.get(node.op_type, ())
    if node.op_type in _BIASED:
        user = sole_user(node.outputs[0])
        if user is not None and user.op_type == "BatchNormalization":
            places = places[:-1]
    return _at(node, places)


def _vector(node: ir.Node, layered: set[ir.Value]) -> ir.Value | None:
    """The constant vector by which an Add or Mul goes on with what a layer gives."""
    if node.op_type not in _VECTOR_OPS:
        return None
    for index in (0, 1):
        value, other = node.inputs[index], node.inputs[1 - index]
        array = const(value)
        if other in layered and is_float_const(value) and array is not None and _is_vector(array):
            return value
    return None


def _is_vector(array: Array) -> bool:
    """Whether it has more than one element, all along one axis."""
    return array.size > 1 and max(array.shape) == array.size


def _is_standardized(node: ir.Node) -> bool:
    """Whether `node` divides by a square root that is computed, as a norm written out does."""
    if node.op_type not in ("Div", "Mul"):
        return False
    divisor = input_at(node, 1)
    root = None if divisor is None else divisor.producer()
    if node.op_type == "Mul":
        if root is None or root.op_type != "Reciprocal":
            return False
        before = root.inputs[0]
        root = None if before is None else before.producer()
    return root is not None and root.op_type == "Sqrt"
