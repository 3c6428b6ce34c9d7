"""The check of products of two activations."""

from __future__ import annotations

from collections.abc import Iterator

import onnx_ir as ir

from edgebm.backends.tensorrt.reading import (
    DQ,
    Fault,
    Q,
    Reading,
    constant_behind,
    dequantizer,
    label,
    readers,
    sizes,
    source,
    stored_type,
)
from edgebm.ir.edit import input_at

_LONGEST = 512
_HEADS = (8, 256)  # an FP8 head is wider than the first and not wider than the second
_FP8 = ir.DataType.FLOAT8E4M3FN


def products(reading: Reading) -> Iterator[Fault]:
    """W13."""
    for node in reading.of("MatMul"):
        if not any(dequantizer(value) for value in node.inputs):
            continue
        if why := unfit_attention(node):
            yield node, why
        if (softmax := _softmax_of(node)) is not None:
            yield from _narrow(node, softmax)
    for softmax in reading.of("Softmax"):
        mask = _producer(input_at(softmax, 0))
        masks = mask is not None and mask.op_type == "Add" and _scores(softmax) is not None
        if mask is not None and masks and any(dequantizer(value) for value in mask.inputs):
            yield mask, f"the mask of the attention '{label(softmax)}' is quantized"


def unfit_attention(node: ir.Node) -> str:
    """Why a product of two activations is to stay float; "" of any other product, too."""
    if node.op_type != "MatMul" or any(constant_behind(value) for value in node.inputs):
        return ""
    softmax = _softmax_of(node)
    if softmax is None and (factored := _softmax_past_factor(node)) is not None:
        return f"a factor stands between the products of its attention '{label(factored)}'"
    if softmax is None:
        return "it multiplies two activations outside of an attention"
    length = (sizes(input_at(softmax, 0)) or (0,))[-1]
    return f"its attention '{label(softmax)}' has {length} steps" if length > _LONGEST else ""


def _softmax_of(node: ir.Node) -> ir.Node | None:
    """The Softmax of the attention that the product belongs to."""
    return _softmax_behind(node) or _softmax_before(node)


def _softmax_past_factor(node: ir.Node) -> ir.Node | None:
    """The Softmax of an attention that has a constant factor behind its first product."""
    for user in _beyond(node):
        if _is_factor(user) and (found := _softmax_behind(user)) is not None:
            return found
    softmax = _producer(input_at(node, 0))
    if softmax is None or softmax.op_type != "Softmax":
        return None
    scores = _producer(input_at(softmax, 0))
    terms = [scores]
    if scores is not None and scores.op_type == "Add":
        terms = [_producer(value) for value in scores.inputs]
    scaled = next((n for n in terms if n is not None and _is_factor(n)), None)
    before = None if scaled is None else [_producer(value) for value in scaled.inputs]
    is_of_product = before and any(n is not None and n.op_type == "MatMul" for n in before)
    return softmax if is_of_product else None


def _is_factor(node: ir.Node) -> bool:
    return node.op_type in ("Mul", "Div") and any(constant_behind(v) for v in node.inputs)


def _narrow(node: ir.Node, softmax: ir.Node) -> Iterator[Fault]:
    """The width of a head in FP8, read at the product of queries and keys."""
    found = dequantizer(input_at(node, 0))
    if found is None or stored_type(found) != _FP8 or _scores(softmax) is not node:
        return
    width = (sizes(input_at(node, 0)) or (0,))[-1]
    if width and not _HEADS[0] < width <= _HEADS[1]:
        yield node, f"its heads are {width} wide, in FP8"


def _softmax_behind(node: ir.Node) -> ir.Node | None:
    """The Softmax of an attention whose product of queries and keys is `node`."""
    for user in _beyond(node):
        found = next((n for n in _beyond(user) if n.op_type == "Softmax"), None)
        softmax = user if user.op_type == "Softmax" else found if user.op_type == "Add" else None
        if softmax is not None and any(n.op_type == "MatMul" for n in _beyond(softmax)):
            return softmax
    return None


def _softmax_before(node: ir.Node) -> ir.Node | None:
    """The Softmax of an attention whose product with the values is `node`."""
    softmax = _producer(input_at(node, 0))
    if softmax is None or softmax.op_type != "Softmax":
        return None
    return softmax if _scores(softmax) is not None else None


def _scores(softmax: ir.Node) -> ir.Node | None:
    """The product that a Softmax is of, with a mask added or not."""
    node = _producer(input_at(softmax, 0))
    if node is not None and node.op_type == "Add":
        terms = [_producer(value) for value in node.inputs]
        node = next((n for n in terms if n is not None and n.op_type == "MatMul"), None)
    return node if node is not None and node.op_type == "MatMul" else None


def _producer(value: ir.Value | None) -> ir.Node | None:
    """What computes `value`, in front of Q/DQ."""
    return None if value is None else source(value).producer()


def _beyond(node: ir.Node) -> list[ir.Node]:
    """What reads the node's output, behind Q/DQ too."""
    return [n for n in readers(node.outputs[0], {Q, DQ}) if n.op_type not in (Q, DQ)]
