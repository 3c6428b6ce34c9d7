"""Constant folding: what depends on no input is computed once, here."""

from __future__ import annotations

import numpy as np
import onnx_ir as ir

from edgebm.ir.dims import Free, Known, is_number, propagate, shape_array
from edgebm.ir.edit import (
    Array,
    add_const,
    const,
    free_name,
    input_at,
    inputs,
    replace_uses,
    set_const,
)
from edgebm.ir.evaluate import evaluate
from edgebm.ir.model import Model

# Random draws stay draws; a dequantized weight would lose its integers.
_KEPT = frozenset(
    {
        "RandomNormal", "RandomNormalLike", "RandomUniform", "RandomUniformLike", "Multinomial",
        "Bernoulli", "QuantizeLinear", "DequantizeLinear", "DynamicQuantizeLinear", "Identity",
        "SequenceConstruct", "SequenceEmpty", "Optional",
    }
)  # fmt: skip
_GRAPHS = (ir.AttributeType.GRAPH, ir.AttributeType.GRAPHS)
_CONSTANT_DTYPES = {
    "value_float": np.float32,
    "value_floats": np.float32,
    "value_int": np.int64,
    "value_ints": np.int64,
}


def fold_constants(model: Model, opset: int) -> int:
    """Replace nodes that depend on no input by their value, in place; return how many.

    `Constant` nodes become initializers, arithmetic on known sizes becomes numbers, and an `If`
    whose condition is known is replaced by its branch. Shapes must be inferred before.

    Raises:
        UnsupportedModel: a constant would be over `evaluate.LIMIT_BYTES`.
    """
    graph = model.graph.graph
    known: Known = {}
    changed = 0
    for node in graph:  # nodes put behind the current one are visited too
        if node.op_type == "If":
            changed += _splice_if(graph, node)
        elif (values := _values(node, opset, known)) is not None:
            _replace(graph, node, values)
            changed += 1
        elif node.op_type == "Reshape":
            changed += _fix_reshape(node, known)
    return changed


def _values(node: ir.Node, opset: int, known: Known) -> list[Array] | None:
    if node.domain not in ("", "ai.onnx") or node.op_type in _KEPT:
        return None
    if any(attribute.type in _GRAPHS for attribute in node.attributes.values()):
        return None
    if node.op_type == "Constant":
        return _constant(node)
    given = inputs(node)
    if given and all(value.const_value is not None for value in given):
        return evaluate(node, opset)
    return _known_sizes(node, known)


def _known_sizes(node: ir.Node, known: Known) -> list[Array] | None:
    """The output if it is arithmetic on known sizes; partly known ones are noted in `known`."""
    sizes = propagate(node, known)
    if sizes is None:
        return None
    dtype = node.outputs[0].dtype
    if is_number(sizes) and dtype is not None:
        return [sizes.astype(dtype.numpy())]
    known[node.outputs[0]] = sizes
    return None


def _fix_reshape(node: ir.Node, known: Known) -> bool:
    target = input_at(node, 1)
    if target is None or target not in known:
        return False
    fixed = _reshape_target(node, known[target])
    if fixed is None:
        return False
    set_const(node, 1, fixed, suffix="fixed")
    node.attributes.pop("allowzero", None)  # `fixed` has zeros only where they mean "copy"
    return True


def _reshape_target(node: ir.Node, target: Array) -> Array | None:
    """A constant shape for a `Reshape` whose target has free sizes, or None.

    A size that stands at the same place in the input becomes 0 ("copy"), one other becomes -1.
    """
    source = shape_array(node.inputs[0])
    if target.ndim != 1:
        return None
    if any(not isinstance(dim, Free) and dim == 0 for dim in target):
        return None
    free = [axis for axis, dim in enumerate(target) if isinstance(dim, Free)]
    dims = list(target)
    asks = any(not isinstance(dim, Free) and dim == -1 for dim in dims)
    if len(free) > 1 or asks:
        for axis in free:
            if source is not None and axis < len(source) and source[axis] == dims[axis]:
                dims[axis] = 0
    rest = [axis for axis, dim in enumerate(dims) if isinstance(dim, Free)]
    if len(rest) > 1 or (rest and asks):
        return None
    if rest:
        dims[rest[0]] = -1
    return np.asarray(dims, np.int64)


def _constant(node: ir.Node) -> list[Array] | None:
    (attribute,) = node.attributes.values() if len(node.attributes) == 1 else (None,)
    if attribute is None:
        return None
    if isinstance(attribute.value, ir.TensorProtocol):
        return [attribute.value.numpy()]
    dtype = _CONSTANT_DTYPES.get(attribute.name)
    return None if dtype is None else [np.asarray(attribute.value, dtype)]


def _replace(graph: ir.Graph, node: ir.Node, values: list[Array]) -> None:
    """Put initializers in the place of the node's outputs; a model output gets an Identity."""
    for out, array in zip(node.outputs, values, strict=False):
        if not out.name and not out.uses():
            continue
        label = out.name or f"{node.name or node.op_type}_out"
        if out.is_graph_output():
            fresh = add_const(graph, f"{label}_value", array)
            hand_on = ir.node("Identity", [fresh])
            graph.insert_after(node, hand_on)
            _take_over(out, hand_on.outputs[0])
            continue
        fresh = ir.val(None, const_value=ir.tensor(array))
        replace_uses(out, fresh)
        out.name = None
        fresh.name = label
        graph.register_initializer(fresh)
    graph.remove(node, safe=True)


def _take_over(old: ir.Value, new: ir.Value) -> None:
    label = old.name
    new.type, new.shape = old.type, old.shape
    replace_uses(old, new)
    old.name = None
    new.name = label


def _splice_if(graph: ir.Graph, node: ir.Node) -> bool:
    """Replace an `If` with a constant condition by the branch it takes."""
    condition = const(node.inputs[0])
    if condition is None or condition.size != 1:
        return False
    taken = "then_branch" if condition.reshape(())[()] else "else_branch"
    branch = node.attributes[taken].as_graph()
    for label, value in list(branch.initializers.items()):
        branch.initializers.pop(label)
        value.name = free_name(graph, label)
        graph.register_initializer(value)
    results = list(branch.outputs)
    branch.outputs.clear()
    body = list(branch)
    branch.remove(body)
    ends = [ir.node("Identity", [value]) for value in results]
    for out, end in zip(node.outputs, ends, strict=True):
        _take_over(out, end.outputs[0])
    graph.insert_after(node, [*body, *ends])
    graph.remove(node, safe=True)
    return True
