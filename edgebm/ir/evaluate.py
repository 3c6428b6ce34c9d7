"""One node on constants: what it gives, and how large that would be before it is computed."""

from __future__ import annotations

import math

import numpy as np
import onnx
import onnx_ir as ir
from onnx.reference import ReferenceEvaluator
from onnx.shape_inference import InferenceError

from edgebm.errors import UnsupportedModel
from edgebm.ir.constant_faults import constant_faults
from edgebm.ir.edit import Array, const, inputs, name

LIMIT_BYTES = 2**30
"""No constant may be larger: a file of 100 bytes can ask for 2**36 numbers."""

_MAY_GROW_BYTES = 2**20
_MAY_GROW_FACTOR = 4
_SHOWN_ELEMENTS = 1024
# Sizes that depend on the data, but are bounded by it.
_DATA_SIZED = frozenset({"NonZero", "Compress", "Unique"})


def output_bytes(node: ir.Node, opset: int) -> int | None:
    """Bytes of all outputs of a node whose inputs are constants; None if inference cannot say."""
    proto = ir.serde.serialize_node(node)
    types, data = {}, {}
    for value in inputs(node):
        tensor = value.const_value
        assert tensor is not None
        types[name(value)] = _type_of(tensor)
        if tensor.size <= _SHOWN_ELEMENTS:
            data[name(value)] = ir.serde.serialize_tensor(tensor)
    try:
        schema = onnx.defs.get_schema(node.op_type, opset)
        found = onnx.shape_inference.infer_node_outputs(
            schema,
            proto,
            types,
            data,
            opset_imports=[onnx.OperatorSetIdProto(domain="", version=opset)],
            ir_version=10,
        )
    except (RuntimeError, ValueError, onnx.defs.SchemaError, InferenceError):
        return None
    sizes = [_type_bytes(found.get(value.name or "")) for value in node.outputs if value.name]
    if any(size is None for size in sizes):
        return _bounded_by_data(node)
    return sum(size for size in sizes if size is not None)


def _type_of(tensor: ir.TensorProtocol) -> onnx.TypeProto:
    kind = onnx.TypeProto()
    kind.tensor_type.elem_type = int(tensor.dtype)
    kind.tensor_type.shape.SetInParent()
    for dim in tensor.shape.numpy():
        kind.tensor_type.shape.dim.add().dim_value = dim
    return kind


def _type_bytes(kind: onnx.TypeProto | None) -> int | None:
    if kind is None or not kind.HasField("tensor_type"):
        return None
    tensor = kind.tensor_type
    if not tensor.HasField("shape") or not tensor.elem_type:
        return None
    if not all(dim.HasField("dim_value") for dim in tensor.shape.dim):
        return None
    elements = math.prod(dim.dim_value for dim in tensor.shape.dim)
    bits: int = elements * ir.DataType(tensor.elem_type).bitwidth
    return -(-bits // 8)


def _bounded_by_data(node: ir.Node) -> int | None:
    if node.op_type not in _DATA_SIZED:
        return None
    tensors = [value.const_value for value in inputs(node)]
    return sum(8 * t.size * max(1, len(t.shape)) for t in tensors if t is not None)


def evaluate(node: ir.Node, opset: int) -> list[Array] | None:
    """The outputs of a deterministic node whose inputs are all constants.

    None where it is better left in the graph: the result would be much larger than what it is
    made from (an `Expand`), or its size or value cannot be told, or there is none.

    Raises:
        UnsupportedModel: the result is over `LIMIT_BYTES`; it is not computed.
    """
    if any(constant_faults(node)):
        return None
    filled = _fill(node) if node.op_type == "ConstantOfShape" else None
    size = (
        output_bytes(node, opset) if filled is None else filled[1].itemsize * math.prod(filled[0])
    )
    if size is None:
        return None
    if size > LIMIT_BYTES:
        raise UnsupportedModel(
            f"node '{node.name}' ({node.op_type}) makes a constant of {size / 2**30:.1f} GiB",
            hint=f"constants over {LIMIT_BYTES // 2**30} GiB are refused",
        )
    if filled is not None:
        return [np.full(*filled)]
    given = sum(value.const_value.nbytes for value in inputs(node) if value.const_value)
    if size > max(_MAY_GROW_BYTES, _MAY_GROW_FACTOR * given):
        return None
    return _reference(node, opset)


def _fill(node: ir.Node) -> tuple[tuple[int, ...], np.generic]:
    """Shape and number of a `ConstantOfShape`."""
    shape = const(node.inputs[0])
    assert shape is not None
    attribute = node.attributes.get("value")
    fill = np.zeros(1, np.float32) if attribute is None else attribute.as_tensor().numpy()
    return tuple(int(dim) for dim in shape), fill.reshape(-1)[0]


def _reference(node: ir.Node, opset: int) -> list[Array] | None:
    feeds = {name(value): const(value) for value in inputs(node)}
    with np.errstate(all="ignore"):
        try:
            outputs = ReferenceEvaluator(ir.serde.serialize_node(node), opsets={"": opset}).run(
                None, feeds
            )
        except (RuntimeError, ValueError, TypeError, IndexError, NotImplementedError):
            return None  # the reference has no answer: the runtime will
    if not all(isinstance(array, np.ndarray | np.generic) for array in outputs):
        return None
    return [np.asarray(array) for array in outputs]
