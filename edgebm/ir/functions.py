"""Functions of the model, and operators newer than the internal opset, written out."""

from __future__ import annotations

import onnx
import onnx.inliner
import onnx_ir as ir
from onnx_ir.passes.common import InlinePass

from edgebm.errors import ModelError, UnsupportedModel
from edgebm.ir.model import Model
from edgebm.ir.opset import INTERNAL_OPSET, convert_nodes, model_opset
from edgebm.ir.shapes import infer_shapes, light_proto

_Id = tuple[str, str, str]
_MAX_LEVELS = 4  # SwiGLU is made of Swish, Swish of Sigmoid


def inline_functions(model: Model, max_nodes: int) -> None:
    """Write every call of a model-local function out, in place.

    Functions may use another opset than the graph: then all are converted first.

    Raises:
        ModelError: functions call each other in a ring.
        UnsupportedModel: the graph would have more than `max_nodes` nodes.
    """
    functions = model.graph.functions
    if not functions:
        return
    sizes: dict[_Id, int] = {}
    total = sum(_written_out(model, node, sizes, ()) for node in model.graph.graph.all_nodes())
    if total > max_nodes:
        raise UnsupportedModel(
            f"{model.source or 'the model'} has {total} nodes once its functions are written out; "
            f"at most {max_nodes} are handled"
        )
    _agree_on_opsets(model)
    InlinePass()(model.graph)
    functions.clear()


def _written_out(
    model: Model, node: ir.Node, sizes: dict[_Id, int], open_: tuple[_Id, ...]
) -> int:
    """How many nodes the call `node` becomes. Nested calls double quickly, so count first."""
    label = node.op_identifier()
    function = model.graph.functions.get(label)
    if function is None:
        return 1
    if label in open_:
        raise ModelError(f"function '{label[1]}' calls itself; ONNX does not allow that")
    if label not in sizes:
        inner = (*open_, label)
        sizes[label] = sum(_written_out(model, n, sizes, inner) for n in function.all_nodes())
    return sizes[label]


def _agree_on_opsets(model: Model) -> None:
    imports = model.graph.opset_imports
    functions = list(model.graph.functions.values())
    opset = model_opset(model)
    for function in functions:
        for domain in list(function.opset_imports):
            if domain:
                function.opset_imports[domain] = imports.setdefault(
                    domain, function.opset_imports[domain]
                )
        function.opset_imports.setdefault("", opset)
    if all(function.opset_imports[""] == opset for function in functions):
        return
    infer_shapes(model)
    convert_nodes(list(model.graph.graph.all_nodes()), opset)
    imports[""] = INTERNAL_OPSET
    for function in functions:
        convert_nodes(list(function.all_nodes()), function.opset_imports[""])
        function.opset_imports[""] = INTERNAL_OPSET


def write_out_newer_ops(model: Model) -> Model:
    """Replace operators that the internal opset lacks by what the standard says they do.

    `RMSNormalization`, `Attention` and their like are functions of older operators. Returns a
    new model where there are any, else `model`. What cannot be written out stays: the
    conversion lists it.
    """
    for _ in range(_MAX_LEVELS):
        written = _write_out_once(model)
        if written is model:
            break
        model = written
    return model


def _write_out_once(model: Model) -> Model:
    opset = model_opset(model)
    newer = sorted({node.op_type for node in model.nodes() if _is_newer(node, opset)})
    if not newer:
        return model
    for node in model.nodes(*newer):
        _fill_defaults(node, opset)
    infer_shapes(model)
    wanted = [("", op_type) for op_type in newer]
    try:
        proto = onnx.inliner.inline_selected_functions(
            light_proto(model), wanted, inline_schema_functions=True
        )
    except RuntimeError:
        return model  # some functions cannot be written out with optional inputs left out
    written = ir.from_proto(proto)
    _give_weights_back(written.graph, model.graph.graph)
    return Model(written, model.source)


def _is_newer(node: ir.Node, opset: int) -> bool:
    if node.domain not in ("", "ai.onnx") or opset <= INTERNAL_OPSET:
        return False
    if onnx.defs.has(node.op_type, max_inclusive_version=INTERNAL_OPSET):
        return False
    if not onnx.defs.has(node.op_type, max_inclusive_version=opset):
        return False
    schema = onnx.defs.get_schema(node.op_type, opset)
    body = schema.has_function or schema.has_context_dependent_function  # type: ignore[attr-defined]
    return bool(body)


def _fill_defaults(node: ir.Node, opset: int) -> None:
    """The writing-out takes attributes from the node alone, not from the operator's defaults."""
    for label, definition in onnx.defs.get_schema(node.op_type, opset).attributes.items():
        if label not in node.attributes and definition.default_value.type:
            node.attributes[label] = ir.serde.deserialize_attribute(definition.default_value)


def _give_weights_back(written: ir.Graph, original: ir.Graph) -> None:
    kept = []
    for value in list(written.inputs):
        source = original.initializers.get(value.name or "")
        if source is None or source.is_graph_input():
            kept.append(value)
    weights = [value for value in written.inputs if value not in kept]
    written.inputs.clear()
    written.inputs.extend(kept)
    for value in weights:
        value.const_value = original.initializers[value.name or ""].const_value
        written.register_initializer(value)
