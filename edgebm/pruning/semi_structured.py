"""2:4 sparsity: of four neighbours along the input axis of a weight, two are zero."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray

from edgebm.ir.edit import const
from edgebm.ir.model import Model
from edgebm.ir.traits import is_float_const, is_transposed

GROUP, KEPT = 4, 2
SPARSE_OPS = ("Conv", "Gemm", "MatMul")


def input_axis(node: ir.Node) -> int:
    """The axis of a layer's weight that it sums over, and along which zeros are counted."""
    if node.op_type == "Conv":
        return 1
    return 1 if is_transposed(node) else -2


def is_2_4(weight: NDArray[Any], axis: int) -> bool:
    """Whether each four neighbours along `axis` have two zeros or more."""
    if weight.shape[axis] % GROUP:
        return False
    zeros = (_grouped(weight, axis) == 0).sum(-1)
    return bool((zeros >= GROUP - KEPT).all())


def masked_2_4(weight: NDArray[Any], axis: int, norms: NDArray[Any] | None = None) -> NDArray[Any]:
    """The weight with the two least of each four neighbours set to zero.

    Args:
        weight: any rank; its size along `axis` is a multiple of 4.
        axis: the input axis.
        norms: of what each input channel holds [weight.shape[axis]]: then |w| times it counts,
            as in Sun et al. 2023, arXiv:2306.11695, section 3; else |w| alone (Mishra et al.
            2021, arXiv:2104.08378).
    """
    size = np.abs(_grouped(weight, axis)).astype(np.float64)
    worth = size if norms is None else size * norms.reshape(-1, GROUP)
    # Where channels hold zeros the size decides, so that zeros stay where they are.
    least = np.lexsort((size, worth), axis=-1)[..., : GROUP - KEPT]
    groups = _grouped(weight, axis).copy()
    np.put_along_axis(groups, least, 0, axis=-1)
    moved = groups.reshape(*groups.shape[:-2], -1)
    return np.ascontiguousarray(np.moveaxis(moved, -1, axis))


def sparse_layers(model: Model) -> dict[str, bool]:
    """Of each layer with a constant weight whether that is 2:4, by the name of the node.

    A weight that was quantized is looked at as it is stored: a zero may have come or gone.
    """
    found = {}
    for node in model.nodes(*SPARSE_OPS):
        weight = _stored(node.inputs[1])
        if weight is not None and weight.ndim > 1:
            found[node.name or "?"] = is_2_4(weight, input_axis(node))
    return found


def _stored(value: ir.Value | None) -> NDArray[Any] | None:
    """The constant float weight, or the integers behind a DequantizeLinear."""
    producer = None if value is None else value.producer()
    if producer is not None and producer.op_type == "DequantizeLinear":
        return const(producer.inputs[0])
    return const(value) if is_float_const(value) else None


def _grouped(weight: NDArray[Any], axis: int) -> NDArray[Any]:
    """[..., groups, 4], the input axis last."""
    moved = np.moveaxis(weight, axis, -1)
    return moved.reshape(*moved.shape[:-1], -1, GROUP)
