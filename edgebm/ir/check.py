"""Which models are legal: before the conversion, and in canonical form."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
import onnx
import onnx_ir as ir

from edgebm.errors import EdgebmError, ModelError, UnsupportedModel
from edgebm.ir.constant_faults import constant_faults
from edgebm.ir.edit import const, inputs
from edgebm.ir.model import Model
from edgebm.ir.opset import INTERNAL_OPSET
from edgebm.ir.shapes import light_proto, static_shape

MAX_NODES = 60_000
MAX_VALUE_BYTES = 2**34
_LISTED = 50
WHY_NO_LAYER = "edgebm.why_no_layer"
"""Key of `node.meta`: why a Loop is no recurrent layer."""
_LOOPS = frozenset({"Loop", "Scan"})
_STANDARD = ("", "ai.onnx")
_WEIGHT_OPS = frozenset(
    {
        "Conv", "ConvTranspose", "Gemm", "MatMul", "Einsum", "LSTM", "GRU", "RNN", "PRelu",
        "BatchNormalization", "InstanceNormalization", "LayerNormalization",
    }
)  # fmt: skip


@contextmanager
def blaming(model: Model) -> Iterator[None]:
    """What code raises that takes valid ONNX for granted is the fault of `model`.

    Raises:
        ModelError: something that is no `EdgebmError` was raised.
    """
    try:
        yield
    except EdgebmError:
        raise
    except Exception as cause:
        raise ModelError(
            f"{model.source or 'the model'} is not valid ONNX: {type(cause).__name__}: {cause}",
            hint="check it with onnx.checker.check_model(path, full_check=True)",
        ) from cause


def check_wiring(model: Model) -> None:
    """Refuse a graph whose values do not hang together; bring its nodes into order.

    Raises:
        ModelError: nodes read values that do not exist (all listed), nothing comes out, or
            nodes feed each other in a ring.
    """
    graph = model.graph.graph
    faults = [
        f"{_label(node)} reads '{value.name}', which no node, input or weight provides"
        for node in graph.all_nodes()
        for value in inputs(node)
        if not _is_provided(value)
    ]
    if not list(graph.outputs):
        faults.append("the graph has no outputs")
    if faults:
        raise ModelError(_listed(model, "is not valid ONNX", faults), details={"faults": faults})
    try:
        graph.sort()
    except ValueError as cause:
        raise ModelError(
            f"{model.source or 'the model'} is not valid ONNX: nodes feed each other in a ring"
        ) from cause


def _is_provided(value: ir.Value) -> bool:
    return value.producer() is not None or value.is_graph_input() or value.is_initializer()


def check_source(model: Model) -> None:
    """Refuse what no conversion could make legal.

    Raises:
        UnsupportedModel: loops, operators nobody defines, too many nodes; all are listed.
    """
    nodes = list(model.graph.graph.all_nodes())
    _refuse(model, _size_faults(len(nodes)))
    known = {(f.domain, f.name) for f in model.graph.functions.values()}
    faults = [
        f"{_label(node)}: {why}"
        for node in nodes
        if (node.domain, node.op_type) not in known
        and node.op_type != "Loop"  # it may turn out to be a recurrent layer
        and (why := _why_unknown(node))
    ]
    _refuse(model, faults)


def _size_faults(count: int) -> list[str]:
    return [f"{count} nodes; at most {MAX_NODES} are handled"] if count > MAX_NODES else []


def _why_unknown(node: ir.Node) -> str:
    """Why a node of the source cannot be handled; empty if it may."""
    if node.domain not in _STANDARD:
        return f"custom operator of domain '{node.domain}'"
    if node.op_type in _LOOPS:
        why = node.meta.get(WHY_NO_LAYER)
        return f"control flow is not supported{f': {why}' if why else ''}"
    if not onnx.defs.has(node.op_type):
        return "no such standard operator"
    return ""


def verify(model: Model) -> None:
    """Check the written contract of the canonical form (`canonicalize`).

    Raises:
        UnsupportedModel: every node or tensor that breaks it, listed with the reason.
    """
    graph = model.graph.graph
    faults = _size_faults(len(graph))
    faults += [f"{_label(node)}: {why}" for node in graph for why in _node_faults(node)]
    faults += list(_face_faults(graph))
    faults += list(_weight_faults(graph))
    faults += list(_value_faults(graph))
    _refuse(model, faults)
    _run_checker(model)


def _node_faults(node: ir.Node) -> Iterator[str]:
    if node.op_type == "If":
        yield "the condition of this If depends on the inputs"
    elif why := _why_unknown(node):
        yield why
    elif not onnx.defs.has(node.op_type, max_inclusive_version=INTERNAL_OPSET):
        yield f"no such operator in opset {INTERNAL_OPSET}"
    else:
        yield from _dtype_faults(node)
        yield from constant_faults(node)
    if node.op_type == "BatchNormalization" and node.attributes.get_int("training_mode", 0) != 0:
        yield "it is in training mode; export the model in eval mode"
    if node.op_type == "Constant":
        yield "a sparse or text constant"
    if node.op_type == "Dropout":
        yield "it is in training mode, or its mask is read; export the model in eval mode"
    for value in inputs(node):
        if not _is_provided(value):
            yield f"reads '{value.name}', which nothing provides"


def _dtype_faults(node: ir.Node) -> Iterator[str]:
    """Dtypes that the operator does not take; newer opsets widened many of them."""
    schema = onnx.defs.get_schema(node.op_type, INTERNAL_OPSET)
    for kind, values, formals in (
        ("input", node.inputs, schema.inputs),
        ("output", node.outputs, schema.outputs),
    ):
        for index, value in enumerate(values):
            if value is None or value.dtype is None or not formals:
                continue
            formal = formals[min(index, len(formals) - 1)]
            if _type_text(value.dtype) not in formal.types:
                yield (
                    f"{kind} {index} ('{value.name}') is {value.dtype.name.lower()}, which the "
                    f"operator does not take in opset {INTERNAL_OPSET}"
                )


def _type_text(dtype: ir.DataType) -> str:
    return f"tensor({dtype.name.lower()})"


def _face_faults(graph: ir.Graph) -> Iterator[str]:
    for kind, values in (("input", graph.inputs), ("output", graph.outputs)):
        for value in values:
            if not isinstance(value.type, ir.TensorType) or value.dtype is None:
                yield f"{kind} '{value.name}' is {value.type or 'untyped'}, not a tensor"
            elif value.dtype == ir.DataType.STRING:
                yield f"{kind} '{value.name}' holds strings"
            elif value.shape is None and kind == "input":
                yield f"{kind} '{value.name}' does not say how many dimensions it has"
            elif any(isinstance(dim, int) and dim < 0 for dim in value.shape or ()):
                yield f"{kind} '{value.name}' has a negative size; give a free axis a name"


def _weight_faults(graph: ir.Graph) -> Iterator[str]:
    """NaN is never meant; infinities are, in attention masks, but not in layers' weights."""
    for value in graph.initializers.values():
        array = const(value)
        if array is None:
            yield f"weight '{value.name}' has no data"
            continue
        if value.dtype is None or not value.dtype.is_floating_point():
            continue
        finite = np.isfinite(array)
        if finite.all():
            continue
        nans = int(np.isnan(array).sum())
        infinite = array.size - int(finite.sum()) - nans
        if nans:
            yield f"weight '{value.name}' has {nans} NaN of {array.size} values"
        elif any(usage.node.op_type in _WEIGHT_OPS for usage in value.uses()):
            yield f"weight '{value.name}' has {infinite} infinite of {array.size} values"


def _value_faults(graph: ir.Graph) -> Iterator[str]:
    for node in graph:
        for value in node.outputs:
            if value.name == "":
                continue
            if isinstance(value.type, ir.SequenceType | ir.OptionalType | ir.SparseTensorType):
                yield f"{_label(node)}: '{value.name}' is {value.type}, not a tensor"
            elif value.dtype is None:
                yield f"{_label(node)}: the dtype of '{value.name}' cannot be inferred"
            elif value.dtype == ir.DataType.STRING:
                yield f"{_label(node)}: '{value.name}' holds strings"
            elif (size := _static_bytes(value)) > MAX_VALUE_BYTES:
                yield f"{_label(node)}: '{value.name}' would take {size / 2**30:.0f} GiB"


def _static_bytes(value: ir.Value) -> int:
    shape = static_shape(value)
    if shape is None or value.dtype is None:
        return 0
    elements = 1
    for dim in shape:
        elements *= dim
    return elements * value.dtype.bitwidth // 8


def _run_checker(model: Model) -> None:
    try:
        onnx.checker.check_model(light_proto(model))
    except onnx.checker.ValidationError as cause:
        raise ModelError(
            f"{model.source or 'the model'} is not valid ONNX; onnx.checker says: "
            f"{str(cause).strip()}"
        ) from cause


def _label(node: ir.Node) -> str:
    out = next((value.name for value in node.outputs if value.name), "?")
    return f"{node.op_type} '{node.name or out}'"


def _refuse(model: Model, faults: list[str]) -> None:
    if faults:
        raise UnsupportedModel(
            _listed(model, "cannot be compressed", faults),
            hint="mend or replace these in the original model and export it again",
            details={"faults": faults},
        )


def _listed(model: Model, what: str, faults: list[str]) -> str:
    shown = [f"  {fault}" for fault in faults[:_LISTED]]
    if len(faults) > _LISTED:
        shown.append(f"  ... and {len(faults) - _LISTED} more")
    return f"{model.source or 'the model'} {what}; {len(faults)} fault(s):\n" + "\n".join(shown)
