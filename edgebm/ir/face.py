"""The model's inputs and outputs as the device half knows them."""

from __future__ import annotations

import onnx_ir as ir

from edgebm.errors import UnsupportedModel
from edgebm.ir.edit import name
from edgebm.ir.model import Model
from edgebm.spec import Dim, TensorSpec

_LAYOUT = "edgebm.layout"  # in `Value.meta`: copied by `clone()`, not written into an ONNX file


def face(model: Model) -> tuple[list[TensorSpec], list[TensorSpec]]:
    """Inputs and outputs in order.

    A named dimension keeps its name. One without gets `<value>_dim<axis>`, so that every free
    axis of an input can be given a range.

    Raises:
        UnsupportedModel: an input or output has no dtype, or an input no rank.
    """
    graph = model.graph.graph
    taken = {
        dim.value
        for value in (*graph.inputs, *graph.outputs)
        for dim in (value.shape or ())
        if isinstance(dim, ir.SymbolicDim) and dim.value is not None
    }
    inputs = [_spec(value, taken) for value in graph.inputs]
    outputs = [_spec(value, taken) for value in graph.outputs]
    return inputs, outputs


def _spec(value: ir.Value, taken: set[str]) -> TensorSpec:
    if value.dtype is None or value.shape is None:
        missing = "dtype" if value.dtype is None else "number of dimensions"
        raise UnsupportedModel(
            f"the {missing} of '{value.name}' is not known",
            hint="export the model with typed inputs and outputs",
        )
    shape = tuple(_dim(value, axis, dim, taken) for axis, dim in enumerate(value.shape))
    return TensorSpec(name(value), dtype_name(value.dtype), shape, layout_of(value))


def layout_of(value: ir.Value) -> str:
    """What was said of the order of an input's axes (`TensorSpec.layout`), or ""."""
    return str(value.meta.get(_LAYOUT, ""))


def set_layout(value: ir.Value, layout: str) -> None:
    """Say what the axes of an input are, for people and for readers of samples."""
    value.meta[_LAYOUT] = layout


def dtype_name(dtype: ir.DataType) -> str:
    """The numpy name of an ONNX element type (`float32`, `int64`, `bool`)."""
    return str(dtype.numpy().name)


def _dim(value: ir.Value, axis: int, dim: int | ir.SymbolicDim, taken: set[str]) -> Dim:
    if isinstance(dim, int):
        return dim
    if dim.value is not None:
        return str(dim.value)
    label, number = f"{value.name}_dim{axis}", 1
    while label in taken:
        label, number = f"{value.name}_dim{axis}_{number}", number + 1
    taken.add(label)
    return label
