"""Matrix products between reshapes to a matrix and back: TensorFlow's `Tensordot`."""

from __future__ import annotations

import onnx_ir as ir

from edgebm.ir.edit import bypass, const, sole_user, why_not_bypass
from edgebm.ir.model import Model
from edgebm.ir.rewrite import rank


def unflatten_products(model: Model) -> int:
    """Multiply [..., K] with its matrix as it is, in place; return how many products were.

    Reshape [..., K] to [M, K], MatMul with a constant [K, N], Reshape to [..., N] becomes one
    MatMul of [..., K]. The axes in front must be known to be the same.
    """
    return sum(_unflattened(node) for node in list(model.nodes("MatMul")))


def _unflattened(product: ir.Node) -> bool:
    given, matrix = product.inputs[0], const(product.inputs[1])
    flat = None if given is None else given.producer()
    back = sole_user(product.outputs[0])
    if flat is None or back is None or matrix is None or matrix.ndim != 2 or rank(given) != 2:
        return False
    if (flat.op_type, back.op_type) != ("Reshape", "Reshape"):
        return False
    source, out = flat.inputs[0], product.outputs[0]
    after = None if source is None else _product_shape(source, matrix.shape)
    if source is None or after is None or back.outputs[0].shape != after:
        return False
    if back.inputs[0] is not out or why_not_bypass(back, out):
        return False
    product.replace_input_with(0, source)
    out.shape = after
    bypass(back, out)
    return True


def _product_shape(source: ir.Value, matrix: tuple[int, ...]) -> ir.Shape | None:
    """The shape of [..., K] times [K, N] if every size has a name; None for plain matrices."""
    dims = list(source.shape or ())
    if len(dims) < 3 or dims[-1] != matrix[0]:
        return None
    named = all(isinstance(dim, int) or dim.value is not None for dim in dims)
    return ir.Shape([*dims[:-1], matrix[1]]) if named else None
