"""2:4 semi-structured sparsity: of four neighbours along a layer's input, two are zero."""

from __future__ import annotations

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray

from edgebm.ir.edit import Array, const, name
from edgebm.ir.model import Model
from edgebm.ir.traits import is_float_const, is_transposed

SPARSE_OPS = ("Conv", "Gemm", "MatMul")
_GROUP, _KEPT = 4, 2
Mask = NDArray[np.bool_]


def sum_axis(node: ir.Node) -> int:
    """The axis of the weight that a Conv, Gemm or MatMul sums over: its input channels."""
    if node.op_type == "Conv" or is_transposed(node):
        return 1
    return -2 if node.op_type == "MatMul" else 0


def kept_two_of_four(score: Array, axis: int) -> Mask:
    """True for the two highest of each four neighbours along `axis`; of equal ones the first.

    Args:
        score: any shape whose size along `axis` is a multiple of 4.
        axis: the one that a layer sums over.

    Source:
        Mishra et al. 2021, "Accelerating sparse deep neural networks", arXiv:2104.08378,
        section 3.
    """
    last = np.moveaxis(score, axis, -1)
    fours = last.reshape(*last.shape[:-1], -1, _GROUP)
    order = np.argsort(-fours, axis=-1, kind="stable")
    mask = np.zeros(fours.shape, np.bool_)
    np.put_along_axis(mask, order[..., :_KEPT], values=True, axis=-1)
    return np.moveaxis(mask.reshape(last.shape), -1, axis)


def is_two_of_four(weight: Array, axis: int) -> bool:
    """Whether no four neighbours along `axis` have more than two that are not zero."""
    if weight.ndim < 2 or weight.shape[axis] % _GROUP:
        return False
    last = np.moveaxis(weight != 0, axis, -1)
    return bool((last.reshape(-1, _GROUP).sum(-1) <= _KEPT).all())


def two_four_weights(model: Model) -> frozenset[str]:
    """Names of the constant weights that are 2:4 for every layer that reads them.

    Those are what TensorRT has sparse kernels for, on GPUs of Ampere and later.
    """
    found: dict[str, bool] = {}
    for node in model.nodes(*SPARSE_OPS):
        value = node.inputs[1]
        if value is not None and is_float_const(value):
            array = const(value)
            assert array is not None
            is_sparse = is_two_of_four(array, sum_axis(node))
            found[name(value)] = found.get(name(value), True) and is_sparse
    return frozenset(label for label, is_sparse in found.items() if is_sparse)
