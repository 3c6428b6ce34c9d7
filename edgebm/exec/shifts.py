"""How far each quantized layer moves the mean of its output channels, in one sweep."""

from __future__ import annotations

from collections.abc import Callable, Iterable

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray

from edgebm.exec.collect import Feeds, FloatRunner
from edgebm.ir.edit import const, dequantized, input_at
from edgebm.ir.model import Model
from edgebm.ir.traits import MATMULS

F64 = NDArray[np.float64]


def output_shifts(
    lowered: Model, original: Model, samples: Iterable[Feeds], progress: Callable[[], None]
) -> dict[str, F64]:
    """Mean of a layer's output less what it would be in float, for the float model's input.

    Each layer is looked at alone: what the layers before it do to its input is corrected where it
    arises, and may be gone where one of them stays float. A channel's mean is known to within its
    standard error over the samples; what is closer to zero than that is not told from chance, and
    the rest is shrunk by it, as a Wiener filter shrinks noise.

    Args:
        lowered: Q/DQ graph.
        original: the float graph of the same node names; its weights are the exact ones.
        samples: a few; one is held in memory at a time.
        progress: called after each sample.

    Returns:
        For each Conv, ConvTranspose, Gemm and MatMul with an integer weight and a quantized
        input, by name: shape [C].
    """
    probe = original.clone()
    rounded = {node.name: node for node in lowered.nodes(*MATMULS)}
    fetched = {}
    for node in list(probe.nodes(*MATMULS)):
        quantized = rounded.get(node.name)
        grid = None if quantized is None else _grid(quantized.inputs[0])
        if quantized is None or grid is None or node.outputs[0].shape is None:
            continue
        if (weight := dequantized(quantized.inputs[1])) is not None:
            fetched[f"{node.name}@shift"] = node.name or "?"
            _Twin(probe, node).watch(grid, weight)
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


def _shrunk(mean: F64, square: F64, count: int) -> F64:
    """`mean` of `count` draws times the share of its square that is not its own error's."""
    error = np.maximum(square - mean**2, 0.0) / (count - 1)
    signal = np.maximum(mean**2 - error, 0.0)
    return np.asarray(mean * signal / np.maximum(mean**2, np.finfo(np.float64).tiny))


def _grid(value: ir.Value | None) -> tuple[NDArray[np.generic], NDArray[np.generic]] | None:
    """Scale and zero point of the rounding that `value` comes from, through what moves values."""
    node = None if value is None else value.producer()
    while node is not None and node.op_type != "DequantizeLinear":
        before = input_at(node, 0)
        node = None if before is None else before.producer()
    if node is None:
        return None
    scale, zero = const(node.inputs[1]), const(node.inputs[2])
    return None if scale is None or zero is None else (scale, zero)


class _Twin:
    """A second, quantized form of one layer of a float graph, beside it."""

    def __init__(self, model: Model, node: ir.Node) -> None:
        self._graph, self._node = model.graph.graph, node

    def watch(
        self, grid: tuple[NDArray[np.generic], NDArray[np.generic]], weight: NDArray[np.float32]
    ) -> None:
        """Add the twin, and the mean over all but the channels of what it adds to the output."""
        node, label = self._node, self._node.name or "?"
        scale, zero = (self._constant(f"grid{k}", part) for k, part in enumerate(grid))
        rounded = self._add("QuantizeLinear", [node.inputs[0], scale, zero])
        rounded.dtype = ir.DataType.from_numpy(grid[1].dtype)
        rounded = self._add("DequantizeLinear", [rounded, scale, zero])
        twin = ir.node(
            node.op_type,
            [rounded, self._constant("weight", weight), *node.inputs[2:]],
            node.attributes.copy(),
        )
        self._graph.append(twin)
        twin.outputs[0].dtype = ir.DataType.FLOAT
        apart = self._add("Sub", [twin.outputs[0], node.outputs[0]])
        rank = len(node.outputs[0].shape or ())
        channels = 1 if node.op_type.startswith("Conv") else rank - 1
        axes = np.array([i for i in range(rank) if i != channels], np.int64)
        mean = self._add("ReduceMean", [apart, self._constant("axes", axes)])
        producer = mean.producer()
        assert producer is not None
        producer.attributes["keepdims"] = ir.AttrInt64("keepdims", 0)
        mean.name = f"{label}@shift"

    def _add(self, op_type: str, inputs: list[ir.Value | None]) -> ir.Value:
        node = ir.node(op_type, inputs)
        self._graph.append(node)
        node.outputs[0].dtype = ir.DataType.FLOAT
        return node.outputs[0]

    def _constant(self, label: str, array: NDArray[np.generic]) -> ir.Value:
        name = f"{self._node.name}@{label}"
        value = ir.val(name, const_value=ir.tensor(array, name=name))
        self._graph.register_initializer(value)
        return value
