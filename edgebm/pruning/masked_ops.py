"""Sums, means, softmaxes and norms that leave some elements out."""

from __future__ import annotations

import itertools

import numpy as np
import onnx_ir as ir

from edgebm.ir.edit import Array, add_const, add_node, input_at, main_graph, take_over
from edgebm.ir.rewrite import float_dtype, swap_output
from edgebm.pruning.removal import Kept

_FAR = 1e30
_LOWEST = frozenset({"ReduceMax", "Softmax", "LogSoftmax"})


def mask_node(node: ir.Node, index: int, axes: dict[int, Kept]) -> None:
    """Let `node` leave out the elements of an input that `axes` does not keep."""
    value = node.inputs[index]
    assert value is not None
    assert value.shape is not None
    rank = len(value.shape)
    if node.op_type in {"LayerNormalization", "InstanceNormalization"}:
        _norm(node, _weights(node, rank, axes, mean=True))
    elif node.op_type == "LRN":
        _local_norm(node, axes[1])
    elif node.op_type in _LOWEST or node.op_type == "ReduceMin":
        far = np.asarray(_FAR if node.op_type == "ReduceMin" else -_FAR, float_dtype(node))
        inside = _const(node, "kept", _weights(node, rank, axes, mean=False) > 0)
        args = [inside, value, _const(node, "far", far)]
        node.replace_input_with(
            index, add_node(node, "Where", args, label=f"{node.name}.left_{index}")
        )
    else:
        weights = _weights(node, rank, axes, mean=node.op_type == "ReduceMean")
        args = [value, _const(node, "kept", weights)]
        node.replace_input_with(
            index, add_node(node, "Mul", args, label=f"{node.name}.left_{index}")
        )


def _const(node: ir.Node, label: str, array: Array) -> ir.Value:
    return add_const(main_graph(node), f"{node.name}.{label}", array)


def _weights(node: ir.Node, rank: int, axes: dict[int, Kept], *, mean: bool) -> Array:
    """1 for what is kept and 0 for the rest, in as many axes as the input has.

    For a `mean` over all, kept ones count n / kept times, so that it is one over the kept.
    """
    weights = np.ones([1] * rank)
    for axis, kept in axes.items():
        column = kept * (len(kept) / kept.sum() if mean else 1.0)
        weights = weights * column.reshape([-1 if a == axis else 1 for a in range(rank)])
    return weights.astype(float_dtype(node))


def _local_norm(node: ir.Node, kept: Kept) -> None:
    """Kept channels are brought side by side, normalized, and put back at their places."""
    side_by_side = _const(node, "kept", np.flatnonzero(kept))
    left = add_node(node, "Gather", [node.inputs[0], side_by_side], {"axis": 1})
    left.name = f"{node.name}.left"
    node.replace_input_with(0, left)
    back = _const(node, "back", np.maximum(np.cumsum(kept) - 1, 0))
    swap_output(node, "Gather", [back], {"axis": 1}).name = f"{node.name}.back"
    node.outputs[0].name = f"{node.name}.short"


def _norm(node: ir.Node, weights: Array) -> None:
    """A LayerNormalization or InstanceNormalization with a mean over the kept elements.

    Source:
        Ba et al. 2016, arXiv:1607.06450, section 3; Ulyanov et al. 2016, arXiv:1607.08022,
        section 3.
    """
    value, scale, out = node.inputs[0], node.inputs[1], node.outputs[0]
    assert value is not None
    assert scale is not None
    rank = weights.ndim
    layer = node.op_type == "LayerNormalization"
    first = node.attributes.get_int("axis", -1) % rank if layer else 2
    axes = _const(node, "axes", np.arange(first, rank))
    counted = _const(node, "kept", weights)

    count = itertools.count()

    def step(op_type: str, *args: ir.Value | None) -> ir.Value:
        return add_node(node, op_type, args, label=f"{node.name}.{op_type}_{next(count)}")

    mean = step("ReduceMean", step("Mul", value, counted), axes)
    apart = step("Sub", value, mean)
    variance = step("ReduceMean", step("Mul", step("Mul", apart, apart), counted), axes)
    least = _const(node, "epsilon", np.asarray(_epsilon(node), float_dtype(node)))
    last = step("Div", apart, step("Sqrt", step("Add", variance, least)))
    for op_type, parameter in (("Mul", scale), ("Add", input_at(node, 2))):
        if parameter is not None:
            if not layer:
                behind = _const(node, "behind", np.arange(1, rank - 1))
                parameter = step("Unsqueeze", parameter, behind)  # noqa: PLW2901
            last = step(op_type, last, parameter)
    take_over(out, last)
    main_graph(node).remove(node, safe=True)


def _epsilon(node: ir.Node) -> float:
    return node.attributes.get_float("epsilon", 1e-5)
