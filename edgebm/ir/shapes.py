"""Shapes and dtypes of every value, by the ONNX standard's own inference."""

from __future__ import annotations

import onnx
import onnx_ir as ir
from onnx.shape_inference import InferenceError

from edgebm.ir.model import Model

# Inference looks at the values of small tensors only (axes, shapes); weights stay outside.
_SMALL_BYTES = 2048
# Names that inference makes up. They hold for one run: the next gives them out anew.
_MADE_UP = "unk__"

Dim = int | ir.SymbolicDim


def light_proto(model: Model) -> onnx.ModelProto:
    """The model as protobuf without its weights: large initializers become typed inputs."""
    copy = model.graph.clone()
    graph = copy.graph
    for label, value in list(graph.initializers.items()):
        tensor = value.const_value
        if tensor is None or tensor.nbytes <= _SMALL_BYTES:
            continue
        value.shape, value.dtype = _shape_of(tensor), tensor.dtype
        graph.initializers.pop(label)
        value.const_value = None
        if not value.is_graph_input():
            graph.inputs.append(value)
    return ir.serde.serialize_model(copy)


def infer_shapes(model: Model) -> None:
    """Fill in the shape and dtype of every value that inference reaches, in place.

    A dimension the inference knows replaces what the file claimed; a name the file gave to a
    dimension that the inference does not know is kept. Inputs are left alone, and an output
    only loses unknown dimensions.
    """
    graph = model.graph.graph
    outputs = [value for node in graph for value in node.outputs]
    for value in outputs:
        _forget_made_up(value)
    found = _inferred(light_proto(model))
    for value in outputs:
        kind = found.get(value.name or "")
        if kind is not None and kind.HasField("tensor_type"):
            _merge(value, kind.tensor_type)
        elif kind is not None and value.type is None:
            value.type = ir.serde.deserialize_type_proto_for_type(kind)
    for value in graph.initializers.values():
        if value.const_value is not None:
            value.shape, value.dtype = _shape_of(value.const_value), value.const_value.dtype


def own_axis_names(model: Model) -> None:
    """Rename free axes of inputs, in place, that are called as inference calls those it makes up.

    tf2onnx numbers its own that way: two sizes could get one name by chance.
    """
    for value in model.graph.graph.inputs:
        if value.shape is not None and any(_is_made_up(dim) for dim in value.shape):
            value.shape = ir.Shape([_own(dim) for dim in value.shape])


def _own(dim: Dim) -> Dim | str:
    if isinstance(dim, int) or not _is_made_up(dim):
        return dim
    return f"free_{str(dim.value)[len(_MADE_UP) :]}"


def _inferred(proto: onnx.ModelProto) -> dict[str, onnx.TypeProto]:
    for output in proto.graph.output:
        # A wrong declaration would stop the inference of everything in front of it.
        if output.type.HasField("tensor_type"):
            output.type.tensor_type.ClearField("shape")
    try:
        inferred = onnx.shape_inference.infer_shapes(proto, data_prop=True)
    except (RuntimeError, ValueError, InferenceError):
        return {}  # values that then have no dtype are named by the legality check
    infos = (*inferred.graph.value_info, *inferred.graph.output)
    return {info.name: info.type for info in infos}


def _shape_of(tensor: ir.TensorProtocol) -> ir.Shape:
    return ir.Shape(tensor.shape.numpy())


def _forget_made_up(value: ir.Value) -> None:
    if value.shape is None or not any(_is_made_up(dim) for dim in value.shape):
        return
    value.shape = ir.Shape([None if _is_made_up(dim) else dim for dim in value.shape])


def _is_made_up(dim: Dim) -> bool:
    return isinstance(dim, ir.SymbolicDim) and str(dim.value or "").startswith(_MADE_UP)


def _merge(value: ir.Value, inferred: onnx.TypeProto.Tensor) -> None:
    face = value.is_graph_output()
    if inferred.elem_type and not (face and value.dtype is not None):
        value.dtype = ir.DataType(inferred.elem_type)
    if not inferred.HasField("shape"):
        return
    dims = [_dim_of(dim) for dim in inferred.shape.dim]
    if value.shape is None:
        value.shape = ir.Shape(dims)
    elif len(value.shape) == len(dims):
        merged = [_choose(old, new, face) for old, new in zip(value.shape, dims, strict=True)]
        value.shape = ir.Shape(merged)
    elif not face:
        value.shape = ir.Shape(dims)


def _dim_of(dim: onnx.TensorShapeProto.Dimension) -> int | str | None:
    if dim.HasField("dim_value"):
        return int(dim.dim_value)
    return dim.dim_param or None


def _choose(old: Dim, new: int | str | None, face: bool) -> Dim | int | str | None:  # noqa: FBT001
    known = isinstance(old, int) or old.value is not None
    if known and (face or not isinstance(new, int)):
        return old
    if face and isinstance(new, str) and new.startswith(_MADE_UP):
        return None
    return new


def static_shape(value: ir.Value | None) -> tuple[int, ...] | None:
    """The shape if every dimension is a number, else None."""
    if value is None or value.shape is None:
        return None
    dims = [dim for dim in value.shape if isinstance(dim, int)]
    return tuple(dims) if len(dims) == len(value.shape) else None
