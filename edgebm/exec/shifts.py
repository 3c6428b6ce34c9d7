"""How far each quantized layer moves the mean of its output channels, in one sweep."""

from __future__ import annotations

from collections.abc import Callable, Iterable

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray

from edgebm.exec.collect import Feeds, FloatRunner
from edgebm.ir.edit import const, inputs
from edgebm.ir.model import Model

F64 = NDArray[np.float64]


def output_shifts(
    lowered: Model, original: Model, samples: Iterable[Feeds], progress: Callable[[], None]
) -> dict[str, F64]:
    """Mean of a layer's output less what it would be in float, for the same unrounded input.

    The input is that of the quantized graph, so that the layers before, whose own shifts are
    corrected where they arise, do not count again. A channel's mean is known to within its
    standard error over the samples; what is closer to zero is not told from chance, and the rest
    is shrunk by it (the positive-part James-Stein estimator).

    Args:
        lowered: Q/DQ graph.
        original: the float graph of the same node names; its weights are the exact ones.
        samples: a few; one is held in memory at a time.
        progress: called after each sample.

    Returns:
        For each Conv, ConvTranspose, Gemm and MatMul with an integer weight, by name: shape [C].
    """
    probe = lowered.clone()
    weights = {node.name: const(node.inputs[1]) for node in original.nodes(*_LAYERS)}
    fetched = {}
    for node in list(probe.nodes(*_LAYERS)):
        exact = weights.get(node.name)
        if exact is not None and _is_dequantized(node.inputs[1]):
            fetched[f"{node.name}.shift"] = node.name or "?"
            _watch(probe, node, exact)
    probe.graph.graph.sort()
    runner = FloatRunner(probe, list(fetched), plain=True)
    sums: dict[str, F64] = {}
    squares: dict[str, F64] = {}
    count = 0
    for feeds in samples:
        count += 1
        for label, shift in runner.run(feeds).items():
            x = np.asarray(shift, np.float64)
            sums[label] = sums.get(label, 0.0) + x
            squares[label] = squares.get(label, 0.0) + x**2
        progress()
    return {
        node: _shrunk(sums[label] / count, squares[label] / count, count)
        for label, node in fetched.items()
        if count > 1
    }


_LAYERS = ("Conv", "ConvTranspose", "Gemm", "MatMul")


def _shrunk(mean: F64, square: F64, count: int) -> F64:
    error = np.maximum(square - mean**2, 0.0) / (count - 1)
    kept = 1.0 - error / np.maximum(mean**2, np.finfo(np.float64).tiny)
    return np.asarray(mean * np.maximum(kept, 0.0))


def _is_dequantized(value: ir.Value | None) -> bool:
    producer = None if value is None else value.producer()
    return producer is not None and producer.op_type == "DequantizeLinear"


def _watch(model: Model, node: ir.Node, exact: NDArray[np.generic]) -> None:
    """Add a float twin of `node`, and the mean over all but the channels of their difference."""
    graph, label = model.graph.graph, node.name or "?"
    weight = ir.val(f"{label}.exact", const_value=ir.tensor(exact, name=f"{label}.exact"))
    graph.register_initializer(weight)
    rest = [value for value in node.inputs[2:] if value is not None]
    twin = ir.node(
        node.op_type, [_unrounded(node.inputs[0]), weight, *rest], node.attributes.copy()
    )
    difference = ir.node("Sub", [node.outputs[0], twin.outputs[0]])
    rank = len(node.outputs[0].shape or ())
    channels = 1 if node.op_type.startswith("Conv") else rank - 1
    axes = np.array([i for i in range(rank) if i != channels], np.int64)
    over = ir.val(f"{label}.axes", const_value=ir.tensor(axes, name=f"{label}.axes"))
    graph.register_initializer(over)
    mean = ir.node("ReduceMean", [difference.outputs[0], over], {"keepdims": 0})
    for each in (twin, difference, mean):
        each.outputs[0].dtype = ir.DataType.FLOAT
        graph.append(each)
    mean.outputs[0].name = f"{label}.shift"


def _unrounded(value: ir.Value | None) -> ir.Value:
    """The value in front of the Q/DQ pair that `value` comes from, or the value itself."""
    assert value is not None
    dequantize = value.producer()
    if dequantize is None or dequantize.op_type != "DequantizeLinear":
        return value
    quantize = inputs(dequantize)[0].producer()
    if quantize is None or quantize.op_type != "QuantizeLinear":
        return value
    return inputs(quantize)[0]
